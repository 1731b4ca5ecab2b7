"""State between torch and JAX: the checks of `both_sides`, which is a process of its own, and what is refused."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from sonew.errors import InvalidConfigError
from sonew.jax import ScaleBySonewState, from_torch, to_torch

ROOT: Final = Path(__file__).resolve().parents[2]
NAMES: Final = (
    *("over, float32, by position", "over, bfloat16, by name"),
    *("back, float32", "back, bfloat16", "default order"),
)


@pytest.fixture(scope="module")
def verdicts() -> dict[str, str]:
    """What became of each check."""
    done = subprocess.run([sys.executable, "-m", "tests.jax.both_sides"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made: dict[str, str] = json.loads(done.stdout)
    assert sorted(made) == sorted(NAMES)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_both_sides(name: str, verdicts: dict[str, str]) -> None:
    assert not verdicts[name], verdicts[name]


@dataclass
class Tensor:
    """As much of a torch.Tensor as is asked for."""

    array: np.ndarray

    @property
    def dtype(self) -> str:
        return f"torch.{self.array.dtype}"

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    def numpy(self) -> np.ndarray:
        return self.array


def saved(band: int = 1) -> dict[str, Any]:
    """The state dict of two parameters, (2, 3) and (4,), after 7 steps."""
    shapes: dict[int, tuple[int, ...]] = {0: (2, 3), 1: (4,)}
    state = {
        i: {
            "momentum": Tensor(np.ones(shape, np.float32)),
            "stats": Tensor(np.ones((band + 1, *shape), np.float32)),
            "count": Tensor(np.array(7, np.int32)),
        }
        for i, shape in shapes.items()
    }
    return {"state": state, "param_groups": [{"params": [0, 1], "layout_version": 1, "param_names": ["w", "b"]}]}


PARAMS: Final = (np.zeros((2, 3), np.float32), np.zeros(4, np.float32))


def test_what_is_read() -> None:
    state = from_torch(saved(), PARAMS)
    assert (int(state.count), [m.shape for m in state.momentum], [s.shape for s in state.stats]) == (7, [(2, 3), (4,)], [(2, 2, 3), (2, 4)])
    by_name = from_torch(saved(), {"x": PARAMS[1]}, order={"x": "b"})
    assert by_name.momentum["x"].shape == (4,)


def broken(**changes: Any) -> dict[str, Any]:
    """A state dict with other entries for the second parameter, None: without the entry, or for the group."""
    made = copy.deepcopy(saved())
    for name, value in changes.items():
        if name in made["param_groups"][0]:
            made["param_groups"][0][name] = value
        elif name == "state":
            made["state"] = value
        else:
            made["state"][1][name] = Tensor(value)
    return made


@pytest.mark.parametrize(
    ("state_dict", "params", "order", "parts"),
    [
        (broken(count=np.array(8, np.int32)), PARAMS, None, ["{'[0]': 7, '[1]': 8}", "one count", "optax.partition"]),
        (broken(state={0: saved()["state"][0]}), PARAMS, None, ["{'[0]': 7, '[1]': 0}", "one count"]),
        (broken(state={}), PARAMS, None, ["{'[0]': 0, '[1]': 0}", "at least one step"]),
        (broken(stats=np.ones((4, 4), np.float32)), PARAMS, None, ["[1]", "(4, 4)", "(2, 4)", "band", "optax.partition"]),
        (broken(momentum=np.ones(4, np.float16)), PARAMS, None, ["[1]", "float16", "float32"]),
        (saved(), (PARAMS[0].T, PARAMS[1]), None, ["[0]", "(2, 3)", "(3, 2)", "transposed", "cannot be converted"]),
        (saved(), PARAMS[:1], None, ["1 parameters", "the state dict 2", "`order`"]),
        (saved(), PARAMS, (0, 5), ["names 5", "[1]", "0, 1]"]),
        (saved(), PARAMS, (0, "c"), ["'c'", "[1]", "'b'"]),
        (broken(layout_version=2), PARAMS, None, ["layout_version=2", "not 1"]),
        ({"state": {}, "param_groups": [{"params": [0]}]}, PARAMS, None, ["layout_version=None", "sonew.torch.SONew"]),
    ],
)
def test_what_is_refused(state_dict: Any, params: Any, order: Any, parts: list[str]) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        from_torch(state_dict, params, order=order)
    for part in parts:
        assert part in str(caught.value)


def test_sharded_state_comes_back_whole() -> None:
    """Each entry in a buffer of its own on one CPU, counts too, because torch steps them in place."""
    mesh = jax.make_mesh((4,), ("x",), devices=jax.devices()[:4])
    cut = jax.device_put(jnp.arange(8.0), NamedSharding(mesh, PartitionSpec("x")))
    stats = jax.device_put(jnp.ones((2, 8)), NamedSharding(mesh, PartitionSpec(None, "x")))
    made = to_torch(ScaleBySonewState(jnp.int32(3), [cut, cut], [stats, stats]), order=[1, 0])
    assert list(made) == [1, 0]
    assert np.array_equal(made[0]["momentum"], np.arange(8.0))
    leaves = [leaf for entry in made.values() for leaf in entry.values()]
    assert all(leaf.devices() == {jax.devices("cpu")[0]} for leaf in leaves)
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
