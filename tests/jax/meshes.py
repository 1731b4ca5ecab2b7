"""Meshes of host devices, trees of sharded leaves, and what a compiled program sends between devices."""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sonew.errors import SonewFallbackWarning
from sonew.jax import scale_by_sonew
from tests.strategies import history
from tests.tolerances import assert_close

NAMES: Final = ("x", "y")
COLLECTIVE: Final = re.compile(r"= (.*?) (all-gather|all-to-all|all-reduce|collective-permute|reduce-scatter)(?:-start)?\(")

# Half the time to compile, and no fused multiply-add: XLA would take it for either product of a sum, another one in every program, so
# that no two would agree in their bits.
QUICK: Final[dict[str, Any]] = {"xla_backend_optimization_level": 0}

# What init says of leaves that are cut where an update cannot know it.
WARNED: Final = pytest.warns(SonewFallbackWarning, match=r"the leaf at \['a'\] is cut by .* Pass shardings=")

Layout = dict[str, tuple[tuple[int, ...], PartitionSpec]]  # by leaf: its shape and spec


def make_mesh(*sizes: int, explicit: bool = False) -> Mesh:
    """A mesh with axes x and y of these sizes."""
    kind = AxisType.Explicit if explicit else AxisType.Auto
    return jax.make_mesh(sizes, NAMES[: len(sizes)], axis_types=(kind,) * len(sizes))


def shardings_of(mesh: Mesh, layout: Layout) -> dict[str, NamedSharding]:
    """Of every leaf."""
    return {name: NamedSharding(mesh, spec) for name, (_, spec) in layout.items()}


def gradients(layout: Layout, *, band: int, dtype: str = "float32", steps: int | None = None) -> list[dict[str, np.ndarray]]:
    """A history for every leaf, one tree per step."""
    of = {name: history(at, shape, band=band, steps=steps).astype(dtype) for at, (name, (shape, _)) in enumerate(layout.items())}
    return [dict(zip(of, row, strict=True)) for row in zip(*of.values(), strict=True)]


def run(tx: Any, grads: list[Any], shardings: Any = None, *, jit: bool = True, **options: Any) -> tuple[Any, Any]:
    """(direction, state) after all gradients, put where `shardings` say; `options` of jit."""
    update = jax.jit(tx.update, compiler_options=QUICK, **options) if jit else tx.update
    placed = [jax.tree.map(jnp.asarray, grad) if shardings is None else jax.device_put(grad, shardings) for grad in grads]
    state = tx.init(placed[0])
    for grad in placed:
        direction, state = update(grad, state)
    return direction, state


def run_whole(layout: Layout, *, dtype: str = "float32", steps: int | None = None, **settings: Any) -> tuple[Any, Any]:
    """`run` of scale_by_sonew on one device, on `gradients`."""
    return _run_whole(tuple(layout.items()), dtype, steps, tuple(settings.items()))


@cache
def _run_whole(layout: Any, dtype: str, steps: int | None, settings: Any) -> tuple[Any, Any]:
    named = dict(settings)
    return run(scale_by_sonew(**named), gradients(dict(layout), band=named["band"], dtype=dtype, steps=steps))


def compare(found: tuple[Any, Any], expected: tuple[Any, Any], row: str = "float32") -> None:
    """State to the last bit, directions by a row: XLA divides by a number or multiplies by its reciprocal as another program suits it."""
    for name, want in expected[0].items():
        assert found[0][name].dtype == want.dtype
        assert_close(found[0][name], want, row, context=f"direction of {name}")
    for field in ("count", "momentum", "stats"):
        got, want = getattr(found[1], field), getattr(expected[1], field)
        jax.tree.map(lambda a, b, field=field: assert_close(a, b, "exact", context=field), got, want)


def assert_laid_out(found: tuple[Any, Any], shardings: dict[str, NamedSharding]) -> None:
    """Direction, momentum and stats are cut like the parameters, the stats behind a dimension more."""
    for name, sharding in shardings.items():
        behind = NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))
        for array, wanted in ((found[0][name], sharding), (found[1].momentum[name], sharding), (found[1].stats[name], behind)):
            if array.size:  # jit gives back empty arrays whole
                assert array.sharding.is_equivalent_to(wanted, array.ndim), (name, array.sharding, wanted)


def compiled(lowered: Any) -> str:
    """Text of the program for the devices here."""
    text: str = lowered.compile(QUICK).as_text()
    return text


def collectives(program: str) -> list[tuple[str, int]]:
    """Of a compiled program: what each collective is, and how many elements it gives to a device."""
    return [
        (found[2], sum(math.prod(int(n) for n in dims.split(",") if n) for dims in re.findall(r"\[([\d,]*)\]", found[1])))
        for found in COLLECTIVE.finditer(program)
    ]
