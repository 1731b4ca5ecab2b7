"""SONew for JAX, as an optax transformation.

In short::

    from sonew.jax import sonew
    tx = sonew(learning_rate=1e-3)

The mathematics stands in `sonew.reference`, the state's shape in `sonew.layout`; this package only keeps books.
"""

from __future__ import annotations

from sonew.jax.convert import from_torch, to_torch
from sonew.jax.sharding import state_shardings
from sonew.jax.transform import ScaleBySonewState, scale_by_sonew, sonew

__all__ = ["ScaleBySonewState", "from_torch", "scale_by_sonew", "sonew", "state_shardings", "to_torch"]
