"""The reference as a JAX backend: the path for every device that has no kernels of its own, and what those are compared with.

On a CPU large tensors are stepped block by block, in place: XLA keeps whole intermediate arrays there, which is what such a step would
wait for. A block's border is met like a shard's: with the old values beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final

import jax
import jax.numpy as jnp
from jax import lax

from sonew import reference, rounding
from sonew.backends.flat_jax import Direction, Facts, Flat, Numbers, combine_roots, root_of, vary_like
from sonew.config import COMPUTE_DTYPE, Problem

KERNEL: Final = ""
BLOCK: Final = 16384  # elements: what a block needs stays in a core's second-level cache


XP: Final = ModuleType("jax.numpy, but for sqrt")
XP.__dict__.update({**vars(jnp), "sqrt": root_of})


def rejects(problem: Problem) -> str | None:  # noqa: ARG001  # the backend protocol's signature; the reference takes every problem
    """Reason why this backend cannot take the problem, or None."""
    return None


def environment() -> dict[str, str | int]:
    """Nothing here is tuned, so nothing identifies the device."""
    return {}


def directions(facts: Sequence[Facts], flats: Sequence[Flat], count: jax.Array, numbers: Numbers) -> list[Direction]:
    """Direction phase of each piece, as whole arrays; `count` is this step's number, int32 ()."""
    return [_whole(fact, flat, count, numbers) for fact, flat in zip(facts, flats, strict=True)]


def blocked_directions(facts: Sequence[Facts], flats: Sequence[Flat], count: jax.Array, numbers: Numbers) -> list[Direction]:
    """The same block by block where that is worth it."""
    return [(_blocked if fact.length > 2 * BLOCK else _whole)(fact, flat, count, numbers) for fact, flat in zip(facts, flats, strict=True)]


def _compute(flat: Flat) -> Any:  # noqa: ANN401  # numpy's dtype-like
    return jnp.dtype(COMPUTE_DTYPE[str(flat.momentum.dtype)])


def _advance(
    fact: Facts, numbers: Numbers, count: jax.Array, position: jax.Array | int, grad: jax.Array, momentum: jax.Array, stats: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Direction, target and new averages at consecutive positions of a tensor from `position` on, which may be negative; unrounded.

    The `band` elements at each end that is not the tensor's come out wrong, but for the averages.
    """
    index = position + jnp.arange(grad.shape[0], dtype=jnp.int32)
    left = fact.total - index
    in_chain = left if fact.chain >= fact.total else fact.chain - index % fact.chain
    if not isinstance(position, int):
        in_chain = jnp.where(index < 0, 0, in_chain)
    links = reference.links_at(left, in_chain, numbers.band)
    return reference.direction(XP, grad, momentum, stats, count, links, numbers)  # type: ignore[arg-type]  # it reads the same fields


def _stored(fact: Facts, count: jax.Array, position: jax.Array | int, values: jax.Array, row: int, dtype: Any) -> jax.Array:  # noqa: ANN401  # numpy's dtype-like
    """A row of the new state as it is kept: bfloat16 is rounded stochastically."""
    if dtype != jnp.bfloat16:
        return values.astype(dtype)
    index = position + jnp.arange(values.shape[0], dtype=jnp.int32)
    bits = rounding.noise(jnp.array([fact.seed], jnp.int32), count.reshape(1), row, index)
    rounded: jax.Array = rounding.round_to_bfloat16(jnp, values, bits)
    return rounded.astype(dtype)


def _store(
    fact: Facts,
    count: jax.Array,
    position: jax.Array | int,
    momentum: jax.Array,
    stats: jax.Array,
    dtype: Any,  # noqa: ANN401  # numpy's dtype-like
) -> tuple[jax.Array, jax.Array]:
    rows = [_stored(fact, count, position, row, k + 1, dtype) for k, row in enumerate(stats)]
    return _stored(fact, count, position, momentum, 0, dtype), jnp.stack(rows)


def _roots(u: jax.Array, target: jax.Array) -> jax.Array:
    """Fourth roots of the sums of squares, (2,)."""
    norms = [reference.norm(XP, x) for x in (u, target)]
    return jnp.stack([root_of(peak) * root_of(root) for peak, root in norms])


def _whole(fact: Facts, flat: Flat, count: jax.Array, numbers: Numbers) -> Direction:
    """The piece at once."""
    compute, band = _compute(flat), numbers.band
    start: jax.Array | int = 0 if fact.whole else flat.piece * fact.length
    fields = [flat.grad.astype(compute), flat.momentum.astype(compute), flat.stats.astype(compute)]
    own = slice(0, fact.length)
    if flat.outer is not None and band:
        outer = flat.outer.astype(compute)
        ends = [(side[-1], side[0], side[1:-1]) for side in outer]
        fields = [jnp.concatenate((left, field, right), -1) for left, field, right in zip(ends[0], fields, ends[1], strict=True)]
        own = slice(band, band + fact.length)
    u, target, momentum, stats = _advance(fact, numbers, count, start - own.start if own.start else start, *fields)
    momentum, stats = _store(fact, count, start, momentum[own], stats[:, own], flat.momentum.dtype)
    return Direction(u[own], _roots(u[own], target[own]), momentum, stats)


def _blocked(fact: Facts, flat: Flat, count: jax.Array, numbers: Numbers) -> Direction:
    """The piece block by block from left to right; the last block is as long as what is left, at least BLOCK.

    Each turn first writes the block before, and then reads its own with `band` elements more on the right, which are still the old ones;
    old values on the left are handed on. So nothing is read after it was written, and XLA copies nothing.
    """
    compute, band, dtype = _compute(flat), numbers.band, flat.momentum.dtype
    start = 0 if fact.whole else flat.piece * fact.length
    turns = fact.length // BLOCK - 1
    flat = jax.tree.map(lambda x: vary_like(x, (flat, count)), flat)  # a loop's arrays keep their types
    outer = vary_like(jnp.zeros((2, band + 3, band), compute), flat) if flat.outer is None else flat.outer.astype(compute)

    def step(at: jax.Array | int, size: int, held: list[jax.Array], before: list[jax.Array]) -> tuple[Direction, list[jax.Array]]:
        """A block of `size` elements from `at` on; `held`: its fields and `band` elements more, `before`: the `band` left of it."""
        fields = [jnp.concatenate((left, field.astype(compute)), -1) for left, field in zip(before, held, strict=True)]
        u, target, momentum, stats = _advance(fact, numbers, count, start + at - band, *fields)
        own = slice(band, band + size)
        momentum, stats = _store(fact, count, start + at, momentum[own], stats[:, own], dtype)
        ahead = [field[..., size : size + band] for field in fields]  # the last `band` of the block's own
        return Direction(u[own], _roots(u[own], target[own]), momentum, stats), ahead

    def write(whole: Sequence[jax.Array], part: Direction, at: jax.Array | int) -> list[jax.Array]:
        parts = (part.u, part.momentum, part.stats)
        return [lax.dynamic_update_slice_in_dim(x, y, at, axis=-1) for x, y in zip(whole, parts, strict=True)]

    def turn(i: jax.Array, carry: Any) -> Any:  # noqa: ANN401  # a tree
        whole, last, before, roots = carry
        whole = write(whole, last, jnp.maximum(i - 1, 0) * BLOCK)
        window = [lax.dynamic_slice_in_dim(x, i * BLOCK, BLOCK + band, axis=-1) for x in (flat.grad, whole[1], whole[2])]
        part, before = step(i * BLOCK, BLOCK, window, before)
        return whole, part, before, combine_roots(jnp.stack((roots, part.roots)))

    u, roots = (vary_like(jnp.zeros(n, compute), flat) for n in (fact.length, 2))
    first = Direction(u[:BLOCK], roots, flat.momentum[:BLOCK], flat.stats[:, :BLOCK])
    before = [outer[0, -1], outer[0, 0], outer[0, 1:-1]]
    whole, last, before, roots = lax.fori_loop(0, turns, turn, ([u, flat.momentum, flat.stats], first, before, roots))
    whole = write(whole, last, max(turns - 1, 0) * BLOCK)
    at = turns * BLOCK
    rest = [x[..., at:] for x in (flat.grad, whole[1], whole[2])]
    beyond = [outer[1, -1], outer[1, 0], outer[1, 1:-1]]
    rest = [jnp.concatenate((field.astype(compute), right), -1) for field, right in zip(rest, beyond, strict=True)]
    part, _ = step(at, fact.length - at, rest, before)
    u, momentum, stats = write(whole, part, at)
    return Direction(u, combine_roots(jnp.stack((roots, part.roots))), momentum, stats)
