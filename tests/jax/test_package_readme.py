"""JAX in the READMEs of `sonew/` and `sonew/jax/`: the programs run, and what is said of names, files and sizes is so."""

from __future__ import annotations

import re
from inspect import signature
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from sonew.backends.xla_jax import BLOCK
from sonew.errors import InvalidConfigError
from sonew.jax import sonew
from sonew.layout import state_layout
from tests.readme import ROOT, fenced

PACKAGE: Final = (ROOT / "sonew" / "README.md").read_text(encoding="utf-8")
PAGE: Final = (ROOT / "sonew" / "jax" / "README.md").read_text(encoding="utf-8")
OTHERS: Final = {*signature(optax.inject_hyperparams).parameters, "out_shardings"}  # arguments of optax and jax


@pytest.fixture(scope="module")
def page() -> list[dict[str, Any]]:
    """What the page's programs leave behind, after each of them."""
    names: dict[str, Any] = {"__name__": "readme", "print": lambda *_: None}
    after = []
    for program in fenced(PAGE, "python"):
        exec(compile(program, "sonew/jax/README.md", "exec"), names)  # noqa: S102  # our own page
        after.append(dict(names))
    return after


def assert_same(one: Any, other: Any) -> None:
    """Updates agree within rounding."""
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(np.asarray(left), np.asarray(right), rtol=1e-5)


def test_the_rate_in_the_state_can_be_written(page: list[dict[str, Any]]) -> None:
    """The transformation was made with 3e-3; that 1e-3 is what was used shows in the last test of the page's programs."""
    held = page[0]["state"]
    assert held.hyperparams["learning_rate"] == np.float32(1e-3)
    assert held.inner_state[0].count == 1


def test_parts_of_a_tree_have_bands_of_their_own(page: list[dict[str, Any]]) -> None:
    made = page[1]
    held = made["state"][0].inner_states
    assert held["diagonal"].inner_state.stats["embedding"].shape == (1, 32, 8)
    assert held["band"].inner_state.stats["kernel"].shape == (3, 8, 16)
    assert jax.tree.map(jnp.shape, made["updates"]) == {"embedding": (32, 8), "kernel": (8, 16)}


def test_sharded_parameters_get_the_update_of_one_device(page: list[dict[str, Any]]) -> None:
    made = page[2]
    stats = made["state"][0].stats["kernel"]
    assert stats.sharding.is_equivalent_to(NamedSharding(made["mesh"], PartitionSpec(None, "devices")), 3)
    assert made["mesh"].size == jax.device_count() == 8
    # From the same gradients the first program took the same first step, at a third of the rate.
    assert_same(made["updates"], jax.tree.map(lambda update: 3 * update, page[0]["updates"]))


def test_the_state_of_a_layer(capsys: pytest.CaptureFixture[str]) -> None:
    """The package's page."""
    (program,) = [block for block in fenced(PACKAGE, "python") if "sonew.jax" in block and "sonew.torch" not in block]
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(program, "sonew/README.md", "exec"), names)  # noqa: S102  # our own page
    assert "((2, 784, 1000), 'float32')" in capsys.readouterr().out
    for name, shape in (("kernel", (784, 1000)), ("bias", (1000,))):
        for buffer in ("momentum", "stats"):
            spec, array = state_layout(shape, 1)[buffer], getattr(names["state"][0], buffer)[name]
            assert (array.shape, str(array.dtype)) == (spec.shape, spec.dtype)


def test_another_band_is_refused() -> None:
    """As the package's page says of checkpoints."""
    assert "| another band | rows are dropped, or start at zero | refused |" in PACKAGE
    params = {"w": jnp.ones((3, 4))}
    with pytest.raises(InvalidConfigError, match="band"):
        sonew(learning_rate=1e-3, band=2).update(params, sonew(learning_rate=1e-3, band=1).init(params), params)


def test_names_files_and_sizes() -> None:
    shown = set(re.findall(r"`(\w+)=", PAGE))
    assert {"backend", "shardings", "static_args", "hyperparam_dtype", "state_dtype", "band", "compute_capability"} <= shown
    assert shown - set(signature(sonew).parameters) - OTHERS == set()
    section = PAGE.split("## Files, in the order in which a step passes them")[1]
    files = {file.name for file in (ROOT / "sonew" / "jax").glob("*.py")} - {"__init__.py"}
    assert {name for name in files if f"`{name}`" not in section} == set()
    assert all((ROOT / path).exists() for path in re.findall(r"`(sonew/[\w/]+\.py)`", section))
    assert f"more than {2 * BLOCK:,} elements" in PAGE
