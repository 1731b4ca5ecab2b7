"""Small trees for the tests of the JAX surface, and comparisons of trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.jax.meshes import QUICK
from tests.strategies import history
from tests.tolerances import assert_close

SHAPES: Final = {"b": (5,), "w": (3, 4)}
STEPS: Final = 3
Tree = Any


def jit(function: Callable[..., Any], **options: Any) -> Any:
    """`jax.jit` that compiles in half the time."""
    return jax.jit(function, compiler_options=QUICK, **options)


def parameters(dtype: Any = np.float32) -> Tree:
    """Random parameters."""
    rng = np.random.default_rng(0)
    return {name: jnp.asarray(rng.standard_normal(shape), dtype) for name, shape in SHAPES.items()}


def gradients(steps: int = STEPS, dtype: Any = np.float32) -> list[Tree]:
    """A tree of gradients per step."""
    columns = {name: history(seed, shape, band=1, steps=steps) for seed, (name, shape) in enumerate(SHAPES.items())}
    return [{name: jnp.asarray(column[step], dtype) for name, column in columns.items()} for step in range(steps)]


def taken(update: Callable[..., Any], state: Any, grads: Sequence[Tree], params: Tree = None, **extra: Any) -> tuple[list[Tree], Any]:
    """(each step's updates, the last state)."""
    updates = []
    for grad in grads:
        new, state = update(grad, state, params, **extra)
        updates.append(new)
    return updates, state


def steps_of(tx: optax.GradientTransformation, grads: Sequence[Tree], params: Tree = None) -> tuple[list[Tree], Any]:
    """The same from the start, compiled."""
    return taken(jit(tx.update), tx.init(grads[0] if params is None else params), grads, params)


def programs(compiled: Any) -> int:
    """How often a jitted function was compiled."""
    count: int = compiled._cache_size()
    return count


def avals(tree: Tree) -> Tree:
    """Structure, shapes and types."""
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), str(jnp.result_type(leaf))), tree)


def same_bits(one: Tree, other: Tree) -> bool:
    """Whether two trees of arrays hold the same bits, NaN included."""
    structures: list[Any] = [jax.tree.structure(tree) for tree in (one, other)]
    return structures[0] == structures[1] and all(
        (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        for a, b in zip(map(np.asarray, jax.tree.leaves(one)), map(np.asarray, jax.tree.leaves(other)), strict=True)
    )


def assert_trees_close(actual: Tree, expected: Tree, row: str) -> None:
    """`assert_close` of every leaf."""
    structure: Any
    leaves, structure = jax.tree_util.tree_flatten_with_path(actual)
    assert structure == jax.tree.structure(expected)
    for (path, leaf), want in zip(leaves, jax.tree.leaves(expected), strict=True):
        assert_close(leaf, want, row, context=jax.tree_util.keystr(path))
