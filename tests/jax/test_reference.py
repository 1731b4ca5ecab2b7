"""The transformation's directions against the float64 reference, on whole leaves and block by block."""

from __future__ import annotations

from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sonew import reference
from sonew.backends import xla_jax
from sonew.config import GRAFTS, Chain, Hyper
from sonew.jax import scale_by_sonew
from tests.jax.meshes import QUICK
from tests.strategies import history
from tests.tolerances import assert_close

CASES: Final[list[tuple[int, Chain, str]]] = [
    (0, "tensor", "adam"),
    (1, "tensor", "rmsprop"),
    (1, "row", "adam"),
    (2, 7, "sgd"),
    (4, "tensor", "none"),
    (8, "row", "adam_uncorrected"),
]


def run(grads: np.ndarray, **settings: Any) -> tuple[jax.Array, Any]:
    """(last direction, state) after all gradients; wide bands, for which XLA takes seconds, compiled in half the time."""
    tx = scale_by_sonew(**settings)
    update = jax.jit(tx.update, compiler_options=QUICK if settings["band"] > 2 else None)
    state = tx.init(jnp.zeros(grads.shape[1:], grads.dtype))
    for grad in grads:
        direction, state = update(jnp.asarray(grad), state)
    return direction, state


def expected(grads: np.ndarray, hyper: Hyper) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(last direction, momentum, stats) in float64."""
    shape = grads.shape[1:]
    momentum, stats = np.zeros(shape), np.zeros((hyper.band + 1, *shape))
    for count, grad in enumerate(grads.astype(np.float64), start=1):
        param, momentum, stats = reference.step(np, np.zeros(shape), grad, momentum, stats, np.asarray(count), hyper)
    return -param, momentum, stats


@pytest.mark.parametrize(("band", "chain", "graft"), CASES)
@pytest.mark.parametrize("block", [16, 10_000])
def test_directions_follow_the_reference(band: int, chain: Chain, graft: Any, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 16 elements in leaves of 156: the borders of blocks are nowhere seen."""
    monkeypatch.setattr(xla_jax, "BLOCK", block)
    hyper = Hyper(band=band, chain=chain, graft=graft, lr=1.0, eps=1e-4)
    grads = history(band, (12, 13), band=band)
    direction, state = run(grads, band=band, chain=chain, graft=graft, eps=1e-4)
    want = expected(grads, hyper)
    assert_close(direction, want[0], "float32")
    assert_close(state.momentum, want[1], "float32 averages")
    assert_close(state.stats, want[2], "float32 averages")
    assert (int(state.count), direction.dtype) == (len(grads), jnp.float32)


@pytest.mark.parametrize("shape", [(), (1,), (2,), (0,), (3, 0)])
@pytest.mark.parametrize("graft", GRAFTS)
def test_tiny_leaves(shape: tuple[int, ...], graft: Any) -> None:
    grads = history(1, shape, band=2)
    direction, _ = run(grads, band=2, graft=graft)
    assert_close(direction, expected(grads, Hyper(band=2, graft=graft, lr=1.0))[0], "float32")
