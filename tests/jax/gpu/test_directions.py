"""Directions and state on a GPU, like the float64 reference: leaves stepped where they lie, and joined ones.

Each test also runs on the CPU by XLA, so that its logic is proven where there is no GPU.
"""

from __future__ import annotations

import itertools
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sonew.backends import triton_jax
from sonew.config import GRAFTS, Hyper
from sonew.jax import scale_by_sonew
from sonew_kernels.spec import TRITON
from tests.jax.gpu.places import CPU, GPU, Place, Run, expected, run
from tests.strategies import history
from tests.tolerances import as_float64, assert_close

BANDS: Final = (0, 1, 2, 4, 8)
ROWS: Final = {"float32": "float32", "bfloat16": "bfloat16 store"}  # of directions, which have the gradients' types
CHAINS: Final = ("tensor", 37, "row")
PAIRS: Final = [
    (band, dtype, CHAINS[i % len(CHAINS)], GRAFTS[i % len(GRAFTS)]) for i, (band, dtype) in enumerate(itertools.product(BANDS, ROWS))
]
ON_CPU: Final = ((1, "float32"), (2, "bfloat16"))  # there XLA compiles every leaf by itself, for seconds
EPS_REL: Final = 1e-3

Row = dict[str, jax.Array]


def gradients(band: int, dtype: str, steps: int | None = None) -> list[Row]:
    """Rows of gradients: leaves that are joined, and one above `JOINED_BELOW`."""
    tile = TRITON.tile(TRITON.default(band), band)
    shapes = {
        "empty": (0,),
        "scalar": (),
        "few": (band + 1,),
        "tile": (tile,),
        "odd": (2 * tile + 37,),
        "matrix": (65, 33),
        "large": (3, 2001),
    }
    histories = {name: history(seed, shape, band=band, steps=steps) for seed, (name, shape) in enumerate(shapes.items())}
    return [{name: jnp.asarray(grads[k], dtype) for name, grads in histories.items()} for k in range(len(histories["large"]))]


def joined(tree: Any, rows: int = 1) -> np.ndarray:
    """float64 (rows, elements of all): a lone mean can be a difference of larger numbers, which leaves it fewer digits."""
    return np.concatenate([as_float64(leaf).reshape(rows, -1) for leaf in jax.tree.leaves(tree)], axis=1)


def assert_like(got: Run, want: Run, band: int, direction: str, averages: str) -> None:
    """Rows of the tolerances for directions and for momentum and stats."""
    for name in got.directions:
        assert_close(got.directions[name], want.directions[name], direction, context=f"direction of {name}")
    pairs = [(joined(got.state.momentum), joined(want.state.momentum))]
    pairs += zip(*(joined(made.state.stats, band + 1)[:, None] for made in (got, want)), strict=True)
    for k, (one, other) in enumerate(pairs):
        assert_close(one, other, averages, context=f"row {k} of momentum and stats")


@pytest.fixture(autouse=True)
def _large_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves of 6000 elements are stepped where they lie."""
    monkeypatch.setattr(triton_jax, "JOINED_BELOW", 6000)


@pytest.mark.parametrize(
    ("place", "band", "dtype", "chain", "graft"),
    [
        *(pytest.param(GPU, *pair, marks=pytest.mark.gpu, id=f"{GPU.backend}, band {pair[0]}, {pair[1]}") for pair in PAIRS),
        *(pytest.param(CPU, *pair, id=f"{CPU.backend}, band {pair[0]}, {pair[1]}") for pair in PAIRS if pair[:2] in ON_CPU),
    ],
    indirect=["place"],
)
def test_directions_and_state_follow_the_float64_reference(place: Place, band: int, dtype: str, chain: Any, graft: Any) -> None:
    """Every band with every type, chains and grafts in turn."""
    rows = gradients(band, dtype)
    got = run(place, rows, band=band, chain=chain, graft=graft, eps_rel=EPS_REL)
    assert (int(got.state.count), str(got.directions["large"].dtype)) == (len(rows), dtype)
    assert_like(
        got, expected(rows, Hyper(band=band, chain=chain, graft=graft, eps_rel=EPS_REL, lr=1.0)), band, ROWS[dtype], "float32 averages"
    )


def test_a_leaf_of_true_size_follows_it_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    rows = [{"leaf": jnp.asarray(grad)} for grad in history(0, (triton_jax.JOINED_BELOW + 13,), band=1)]
    got = run(place, rows, band=1, eps_rel=EPS_REL)
    assert_like(got, expected(rows, Hyper(band=1, eps_rel=EPS_REL, lr=1.0)), 1, "float32", "float32 averages")


@pytest.mark.parametrize(
    ("place", "band"),
    [pytest.param(GPU, 1, marks=pytest.mark.gpu), pytest.param(GPU, 4, marks=pytest.mark.gpu), (CPU, 1)],
    indirect=["place"],
)
def test_bfloat16_state_is_rounded_by_the_same_noise_as_xla_rounds(place: Place, band: int) -> None:
    rows = [{name: row[name] for name in ("scalar", "odd", "large")} for row in gradients(band, "bfloat16")]
    settings: dict[str, Any] = {"band": band, "state_dtype": "bfloat16", "eps_rel": EPS_REL, "seed": 3}
    got, want = run(place, rows, **settings), run(CPU, rows, **settings)
    assert {str(leaf.dtype) for leaf in got.state.stats.values()} == {"bfloat16"}
    assert_like(got, want, band, "bfloat16 averages", "bfloat16 stochastic")


def bits(made: Run) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(made)]


@pytest.mark.parametrize("state_dtype", ["float32", "bfloat16"])
def test_two_runs_give_the_same_bits(place: Place, state_dtype: str) -> None:
    rows = [{name: row[name] for name in ("few", "large")} for row in gradients(1, "float32", steps=3)]
    one, other = (run(place, rows, band=1, state_dtype=state_dtype) for _ in range(2))
    assert bits(one) == bits(other)


def test_steps_of_a_scan_are_the_steps_one_by_one(place: Place) -> None:
    """State that a loop carries is stepped in place as a donated one is."""
    rows = [{name: row[name] for name in ("scalar", "odd", "large")} for row in gradients(1, "float32", steps=7)]
    single = run(place, rows, band=1, eps_rel=EPS_REL)
    device = jax.devices(place.platform)[0]
    tx = scale_by_sonew(band=1, eps_rel=EPS_REL, backend=place.backend, tuning="off")
    stacked = jax.device_put(jax.tree.map(lambda *grads: jnp.stack(grads), *rows), device)
    state = jax.device_put(tx.init(rows[0]), device)

    def step(state: Any, grads: Any) -> tuple[Any, Any]:
        directions, state = tx.update(grads, state)
        return state, directions

    state, directions = jax.jit(lambda state, grads: lax.scan(step, state, grads), donate_argnums=0)(state, stacked)
    last = {name: direction[-1] for name, direction in directions.items()}
    assert_like(Run(last, state), single, 1, "float32", "float32 averages")
