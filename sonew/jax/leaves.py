"""A leaf's arrays in their own shape, and flat, as backends see them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sonew.backends.flat_jax import Direction, Flat, Numbers, graft_scale


def is_eager(arrays: Any) -> bool:  # noqa: ANN401  # a tree
    """Whether none of these arrays is traced."""
    return not any(isinstance(array, jax.core.Tracer) for array in jax.tree.leaves(arrays))


class Leaf(NamedTuple):
    """A leaf before the step: gradient S, momentum S, stats (b + 1, *S); after it the grafted direction in place of the gradient."""

    grad: jax.Array
    momentum: jax.Array
    stats: jax.Array

    def flat(self) -> Flat:
        """The arrays as a backend sees them."""
        return Flat(jnp.reshape(self.grad, -1), self.momentum.reshape(-1), self.stats.reshape(self.stats.shape[0], -1))

    def stepped(self, made: Direction, numbers: Numbers) -> Leaf:
        """The leaf after the step: the direction at the length of its target, in the gradient's type and shape, and the new state."""
        u = made.u
        if numbers.graft != "none":
            scale = graft_scale(made.roots)
            u = u * scale * scale
        new = u.reshape(jnp.shape(self.grad)).astype(jnp.result_type(self.grad))
        return Leaf(new, made.momentum.reshape(self.momentum.shape), made.stats.reshape(self.stats.shape))
