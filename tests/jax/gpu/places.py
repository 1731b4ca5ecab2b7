"""Places, and runs of the transformation at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sonew import reference
from sonew.config import Hyper
from sonew.jax import ScaleBySonewState, scale_by_sonew

Tree = Mapping[str, Any]


class Place(NamedTuple):
    """Where a body runs."""

    platform: str
    backend: str


GPU: Final = Place("gpu", "triton")
CPU: Final = Place("cpu", "reference")


class Run(NamedTuple):
    """Directions of the last step and the state after it."""

    directions: Mapping[str, Any]
    state: Any


def run(place: Place, rows: Sequence[Tree], **settings: Any) -> Run:
    """Every row of gradients stepped in a jitted step whose state is donated."""
    device = jax.devices(place.platform)[0]
    tx = scale_by_sonew(backend=place.backend, tuning="off", **settings)
    update = jax.jit(tx.update, donate_argnums=1)
    placed = [{name: jax.device_put(jnp.asarray(grad), device) for name, grad in row.items()} for row in rows]
    with jax.default_device(device):
        state = jax.tree.map(jnp.copy, tx.init(placed[0]))
    assert ("triton_kernel_call" in update.lower(placed[0], state).as_text()) == (place.backend == "triton")
    directions: Any = None
    for row in placed:
        directions, state = update(row, state)
    assert {leaf.device for leaf in jax.tree.leaves((directions, state))} == {device}
    return Run(directions, state)


def expected(rows: Sequence[Tree], hyper: Hyper) -> Run:
    """The same in float64, leaf by leaf."""
    ends = {name: _leaf([np.asarray(row[name], np.float64) for row in rows], hyper) for name in rows[0]}
    directions, momentum, stats = ({name: end[i] for name, end in ends.items()} for i in range(3))
    return Run(directions, ScaleBySonewState(jnp.asarray(len(rows)), momentum, stats))


def _leaf(grads: Sequence[np.ndarray], hyper: Hyper) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(last direction, momentum, stats)."""
    zeros = np.zeros(grads[0].shape)
    param, momentum, stats = zeros, zeros, np.zeros((hyper.band + 1, *zeros.shape))
    for count, grad in enumerate(grads, start=1):
        param, momentum, stats = reference.step(np, zeros, grad, momentum, stats, np.asarray(count), hyper)
    return -param, momentum, stats
