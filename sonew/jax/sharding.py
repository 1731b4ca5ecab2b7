"""Sharded leaves: each device steps the piece it holds. What lies beyond a piece's ends comes from its neighbours, norms are summed up.

The arithmetic of pieces is `sonew.sharding`'s, with the even shards that JAX has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sonew.backends.flat_jax import Direction, Facts, Flat, Numbers
from sonew.errors import InvalidConfigError, UnsupportedProblemError
from sonew.jax.leaves import Leaf
from sonew.layout import BufferSpec
from sonew.sharding import Piece, Split, is_contiguous_everywhere, place

Shardings = Any  # a tree like the parameters, of NamedSharding or None
Run = Callable[[Sequence[Facts], Sequence[Flat], jax.Array], list[Direction]]
FIX: Final = "Pass jax.tree.map(lambda x: x.sharding, params), or None to let XLA's partitioner decide."


@dataclass(frozen=True, slots=True)
class Shard:
    """How a leaf is cut.

    Attributes:
        mesh, spec: of its sharding. axes: the mesh's axes that cut it, major first.
        piece: what every device holds, the first one's.
        halo: whether some chain crosses a border.
    """

    mesh: Any
    spec: PartitionSpec
    axes: tuple[str, ...]
    piece: Piece
    halo: bool


def _axes_of(entry: Any) -> tuple[str, ...]:  # noqa: ANN401  # an entry of a PartitionSpec
    return () if entry is None else entry if isinstance(entry, tuple) else (entry,)


def sharding_of(array: Any) -> NamedSharding | None:  # noqa: ANN401  # an array-like
    """What is known of an array's sharding: of a concrete one its own, of a traced one what explicit axes say; None: nothing, or whole."""
    sharding = getattr(jax.typeof(array) if isinstance(array, jax.core.Tracer) else array, "sharding", None)
    if not isinstance(sharding, NamedSharding) or not any(_axes_of(entry) for entry in sharding.spec):
        return None
    return sharding


def shard_of(grad: Any, given: Any, numbers: Numbers, state_dtype: str) -> Shard | None:  # noqa: ANN401  # an array-like; what a user passes
    """How a gradient is cut, None where it is not or where nothing is known.

    Args:
        grad: the leaf. given: its entry of `shardings`. numbers: settings. state_dtype: of the state.

    Raises:
        InvalidConfigError: an entry that is no NamedSharding.
        UnsupportedProblemError: a cut that cannot be stepped exactly.
    """
    if given is not None and not isinstance(given, NamedSharding):
        if isinstance(given, jax.sharding.Sharding):
            return None  # of one device
        msg = f"shardings holds {given!r}, which is not allowed: it must be a jax.sharding.NamedSharding or None. {FIX}"
        raise InvalidConfigError(msg)
    sharding = given if given is not None else sharding_of(grad) if isinstance(grad, jax.core.Tracer) else None
    if sharding is None:
        return None
    shape, spec, mesh = jnp.shape(grad), sharding.spec, sharding.mesh
    cuts = [(dim, axis, mesh.shape[axis]) for dim, entry in enumerate(spec) for axis in _axes_of(entry) if mesh.shape[axis] > 1]
    if not cuts:
        return None
    for dim in {dim for dim, _, _ in cuts}:
        parts = math.prod(size for at, _, size in cuts if at == dim)
        if shape[dim] % parts:
            msg = f"SONew does not support uneven shards: dimension {dim} of shape {shape} is cut into {parts} parts by {spec}. {FIX}"
            raise UnsupportedProblemError(msg)
    splits = tuple(Split(dim, size) for dim, _, size in cuts)
    if state_dtype == "bfloat16" and not is_contiguous_everywhere(shape, splits):
        msg = (
            f"stochastic rounding needs shards that are one run of the leaf's elements; shape {shape} is cut by {spec}. "
            "Cut the first dimension alone, or use float32 state."
        )
        raise UnsupportedProblemError(msg)
    piece = place(shape, splits, (0,) * len(splits), numbers.chain, numbers.band)
    halo = numbers.band > 0 and piece.length < piece.total and piece.length % piece.chain != 0
    return Shard(mesh, spec, tuple(axis for _, axis, _ in cuts), piece, halo)


def zeros_like_param(param: Any, spec: BufferSpec, given: Any) -> jax.Array:  # noqa: ANN401  # an array-like; what a user passes
    """A state buffer, sharded like its parameter behind the leading dimensions that it has more."""
    sharding = given if isinstance(given, NamedSharding) else sharding_of(param)
    zeros = jnp.zeros(spec.shape, spec.dtype)
    if sharding is None:
        return zeros
    wanted = behind(sharding, len(spec.shape) - jnp.ndim(param))
    if any(kind == jax.sharding.AxisType.Explicit for kind in sharding.mesh.axis_types):
        return jnp.zeros(spec.shape, spec.dtype, out_sharding=wanted)
    placed: jax.Array = lax.with_sharding_constraint(zeros, wanted)
    return placed


def behind(sharding: NamedSharding, more: int) -> NamedSharding:
    """The sharding of an array with `more` leading dimensions, which are not cut."""
    return NamedSharding(sharding.mesh, PartitionSpec(*(None,) * more, *sharding.spec))


def sharded(
    shards: Sequence[Shard], seeds: Sequence[int], leaves: Sequence[Leaf], count: jax.Array, numbers: Numbers, run: Run
) -> list[Leaf]:
    """Sharded leaves after the step, laid out as they are.

    Args:
        shards: how each leaf is cut. seeds: of their stochastic rounding. leaves: their arrays.
        count: this step's number. numbers: settings.
        run: the direction phase of pieces.
    """
    out = list(leaves)
    static, traced = numbers.split()
    for mesh in dict.fromkeys(shard.mesh for shard in shards):
        members = [i for i, shard in enumerate(shards) if shard.mesh == mesh]
        specs = [Leaf(shards[i].spec, shards[i].spec, PartitionSpec(None, *shards[i].spec)) for i in members]  # type: ignore[arg-type]  # specs in place of arrays
        step = jax.shard_map(
            _body([shards[i] for i in members], [seeds[i] for i in members], static, run),
            mesh=mesh if isinstance(mesh, Mesh) else None,  # None: the one that is set, of which explicit types speak
            in_specs=(specs, PartitionSpec(), PartitionSpec()),
            out_specs=specs,
            check_vma=False,  # a kernel's results say nothing of how they vary
        )
        for i, made in zip(members, step([leaves[i] for i in members], count, traced), strict=True):
            out[i] = made
    return out


def _body(shards: Sequence[Shard], seeds: Sequence[int], static: Numbers, run: Run) -> Callable[..., list[Leaf]]:
    """What each device does with its pieces."""
    facts = [Facts(shard.piece.length, shard.piece.total, shard.piece.chain, seed) for shard, seed in zip(shards, seeds, strict=True)]
    by_axes: dict[tuple[str, ...], list[int]] = {}
    for i, shard in enumerate(shards):
        by_axes.setdefault(shard.axes, []).append(i)

    def body(leaves: Sequence[Leaf], count: jax.Array, traced: dict[str, jax.Array]) -> list[Leaf]:
        numbers = static.joined(traced)
        flats = [leaf.flat() for leaf in leaves]
        for axes, members in by_axes.items():
            crossed = [i for i in members if shards[i].halo]
            outer = dict(zip(crossed, _exchange(shards[members[0]], [flats[i] for i in crossed], numbers.band), strict=True))
            for i in members:
                if not facts[i].whole:
                    flats[i] = flats[i]._replace(piece=lax.axis_index(axes).astype(jnp.int32), outer=outer.get(i))
        made = run(facts, flats, count)
        for axes, members in by_axes.items() if numbers.graft != "none" else ():
            roots = _combine_over(axes, jnp.stack([made[i].roots for i in members]))
            for at, i in enumerate(members):
                made[i] = made[i]._replace(roots=roots[at])
        return [leaf.stepped(one, numbers) for leaf, one in zip(leaves, made, strict=True)]

    return body


def _combine_over(axes: tuple[str, ...], roots: jax.Array) -> jax.Array:
    """Fourth roots of sums of squares, of the part on each device: of what all devices along the axes have (`combine_roots`)."""
    largest = lax.pmax(roots, axes)
    safe = jnp.where(largest > 0, largest, 1)
    return safe * jnp.sqrt(jnp.sqrt(lax.psum((roots / safe) ** 4, axes)))


def _exchange(shard: Shard, flats: Sequence[Flat], band: int) -> list[jax.Array]:
    """What lies beyond both ends of this device's pieces, (2, band + 3, band) each; zeros beyond the tensor.

    All pieces travel together, one permutation to either side. Those shorter than the band are served by several neighbours, hop by hop.
    """
    if not flats:
        return []
    devices = math.prod(shard.mesh.shape[axis] for axis in shard.axes)
    wide = jnp.promote_types(flats[0].momentum.dtype, jnp.float32)
    fields = [jnp.concatenate([x.astype(wide) for x in (f.momentum[None], f.stats, f.grad[None])]) for f in flats]
    reach = [min(band, field.shape[1]) for field in fields]
    sides: list[list[jax.Array]] = []
    for side in (0, 1):
        ends = [field[:, field.shape[1] - w :] if side == 0 else field[:, :w] for field, w in zip(fields, reach, strict=True)]
        got = [end[:, :0] for end in ends]
        for hop in range(1, -(-band // min(reach)) + 1):
            served = [i for i, w in enumerate(reach) if (hop - 1) * w < band]
            sent = jnp.concatenate([ends[i].reshape(-1) for i in served])
            pairs = [(d, d + hop) if side == 0 else (d + hop, d) for d in range(devices - hop)]
            parts = jnp.split(
                lax.ppermute(sent, shard.axes, pairs), [sum(ends[j].size for j in served[: k + 1]) for k in range(len(served) - 1)]
            )
            for i, part in zip(served, parts, strict=True):
                piece = part.reshape(ends[i].shape)
                got[i] = jnp.concatenate((piece, got[i]) if side == 0 else (got[i], piece), 1)
        sides.append([g[:, g.shape[1] - band :] if side == 0 else g[:, :band] for g in got])
    return [jnp.stack(pair) for pair in zip(*sides, strict=True)]
