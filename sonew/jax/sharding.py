"""Sharded leaves: each device steps the piece it holds. What lies beyond a piece's ends comes from its neighbours, norms are summed up.

The arithmetic of pieces is `sonew.sharding`'s, with the even shards that JAX has.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sonew.backends.flat_jax import Direction, Facts, Flat, Numbers, combine_roots
from sonew.errors import InvalidConfigError, SonewFallbackWarning, UnsupportedProblemError
from sonew.jax.leaves import Leaf, is_eager
from sonew.layout import BufferSpec
from sonew.sharding import Piece, Split, is_contiguous_everywhere, place

Shardings = Any  # a tree like the parameters, of NamedSharding or None
Run = Callable[[Sequence[Facts], Sequence[Flat], jax.Array, Numbers], list[Direction]]
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


def typed_sharding(array: Any) -> NamedSharding | None:  # noqa: ANN401  # an array-like
    """What explicit axes of a mesh say of an array, concrete or traced; None: nothing, or that it is whole."""
    sharding = jax.typeof(array).sharding
    return sharding if any(_axes_of(entry) for entry in sharding.spec) else None


def entries_at(shardings: Shardings, leaves: Mapping[str, Any]) -> list[Any]:
    """The entries of `shardings` for leaves by path, each None where it is None; those of other leaves, masked ones, may be there.

    Raises:
        InvalidConfigError: a leaf without an entry, an entry that is no sharding or of another number of dimensions.
    """
    if shardings is None:
        return [None] * len(leaves)
    named = jax.tree_util.tree_leaves_with_path(shardings, is_leaf=lambda entry: entry is None)
    entries = {jax.tree_util.keystr(path): entry for path, entry in named}
    if missing := [path or "the root" for path in leaves if path not in entries]:
        msg = f"shardings has no entry for the leaf at {missing[0]}, which is not allowed: it must be a tree like the parameters. {FIX}"
        raise InvalidConfigError(msg)
    for path, leaf in leaves.items():
        entry, shape = entries[path], jnp.shape(leaf)
        if not isinstance(entry, jax.sharding.Sharding | None):
            msg = f"shardings holds {entry!r}, which is not allowed: it must be a jax.sharding.NamedSharding or None. {FIX}"
            raise InvalidConfigError(msg)
        if isinstance(entry, NamedSharding) and PartitionSpec.UNCONSTRAINED in entry.spec:
            msg = f"shardings holds {entry.spec} for a leaf of shape {shape}, which is not allowed: every dimension must be said. {FIX}"
            raise InvalidConfigError(msg)
        if isinstance(entry, NamedSharding) and len(entry.spec) > len(shape):
            msg = f"shardings holds {entry.spec} for a leaf of shape {shape}, which is not allowed: one entry per dimension, at most. {FIX}"
            raise InvalidConfigError(msg)
    return [entries[path] for path in leaves]


def shard_of(grad: Any, given: Any, numbers: Numbers, state_dtype: str) -> Shard | None:  # noqa: ANN401  # an array-like; what a user passes
    """How a gradient is cut, None where it is not or where nothing is known.

    Args:
        grad: the leaf. given: its entry of `shardings` (`entries_at`). numbers: settings. state_dtype: of the state.

    Raises:
        UnsupportedProblemError: a cut that cannot be stepped exactly.
    """
    shape = jnp.shape(grad)
    sharding = typed_sharding(grad) if given is None else given
    if not isinstance(sharding, NamedSharding):
        return None  # nothing is known, or it lies on one device
    spec, mesh = sharding.spec, sharding.mesh
    cuts = [(dim, axis, mesh.shape[axis]) for dim, entry in enumerate(spec) for axis in _axes_of(entry) if mesh.shape[axis] > 1]
    if not cuts:
        return None
    for dim, n in enumerate(shape):
        parts = math.prod(size for at, _, size in cuts if at == dim)
        if n % parts:
            msg = (
                f"SONew does not support uneven shards: dimension {dim} of shape {shape} is cut into {parts} parts by {spec}. "
                "Cut another dimension, pad it, or replicate the leaf."
            )
            raise UnsupportedProblemError(msg)
    splits = tuple(Split(dim, size) for dim, _, size in cuts)
    if state_dtype == "bfloat16" and not is_contiguous_everywhere(shape, splits):
        msg = (
            f"stochastic rounding needs shards that are one run of the leaf's elements; shape {shape} is cut by {spec}. "
            "Cut the first dimension alone, or use float32 state."
        )
        raise UnsupportedProblemError(msg)
    try:
        piece = place(shape, splits, (0,) * len(splits), numbers.chain, numbers.band)
    except UnsupportedProblemError as error:
        msg = f"{error} In JAX this cut is {spec}, and Shard(0) is a PartitionSpec that cuts the first dimension alone."
        raise UnsupportedProblemError(msg) from error
    halo = numbers.band > 0 and piece.length < piece.total and piece.length % piece.chain != 0
    return Shard(mesh, spec, tuple(axis for _, axis, _ in cuts), piece, halo)


def warn_of_gathers(leaves: Mapping[str, Any], given: Sequence[Any]) -> None:
    """Say that leaves are cut of which an update will know nothing: there types do not tell, and `shardings` does not either."""
    for (path, leaf), entry in zip(leaves.items(), given, strict=True):
        if entry is not None or isinstance(leaf, jax.core.Tracer) or not isinstance(leaf, jax.Array) or typed_sharding(leaf) is not None:
            continue
        if isinstance(leaf.sharding, NamedSharding) and not leaf.sharding.is_fully_replicated:
            message = (
                f"the leaf at {path or 'the root'} is cut by {leaf.sharding.spec}, of which a jitted update sees nothing: XLA's "
                "partitioner may gather it. Pass shardings=jax.tree.map(lambda x: x.sharding, params), or make the mesh's axes explicit."
            )
            warnings.warn(message, SonewFallbackWarning, stacklevel=3)
            return


def zeros_like_param(param: Any, spec: BufferSpec, given: Any) -> jax.Array:  # noqa: ANN401  # an array-like; what a user passes
    """A state buffer, sharded like its parameter behind the leading dimensions that it has more, as far as that is known."""
    concrete = not isinstance(param, jax.core.Tracer)
    sharding = given or (getattr(param, "sharding", None) if concrete else typed_sharding(param))
    if not isinstance(sharding, NamedSharding):
        return jnp.zeros(spec.shape, spec.dtype)
    wanted = with_leading(sharding, len(spec.shape) - jnp.ndim(param))
    if concrete:
        return jnp.zeros(spec.shape, spec.dtype, device=wanted)
    if any(kind == AxisType.Explicit for kind in sharding.mesh.axis_types):
        return jnp.zeros(spec.shape, spec.dtype, out_sharding=wanted)
    placed: jax.Array = lax.with_sharding_constraint(jnp.zeros(spec.shape, spec.dtype), wanted)
    return placed


def state_shardings(tx: optax.GradientTransformation, params: optax.Params) -> Any:  # noqa: ANN401  # a tree like the state
    """How the state of an optax transformation lies on the devices of its parameters: a tree like `tx.init(params)`, of shardings.

    What the state keeps per parameter is cut like it, behind the leading dimensions that it has more; all else is replicated. Use it for
    `jax.jit(tx.init, out_shardings=...)`, for `out_shardings` of a step, and to restore a checkpoint.

    Args:
        tx: any transformation that `optax.tree_utils.tree_map_params` understands: sonew, alone or inside optax's wrappers.
        params: a tree of arrays, or of `jax.ShapeDtypeStruct` with shardings.

    Raises:
        InvalidConfigError: a parameter without a sharding.
    """
    for path, param in jax.tree_util.tree_leaves_with_path(params):
        if not isinstance(getattr(param, "sharding", None), jax.sharding.Sharding):
            where = jax.tree_util.keystr(path) or "the root"
            msg = f"the parameter at {where} has no sharding, which is not allowed: pass arrays or jax.ShapeDtypeStruct(..., sharding=...)."
            raise InvalidConfigError(msg)
    meshes = [param.sharding.mesh for param in jax.tree.leaves(params) if isinstance(param.sharding, NamedSharding)]
    whole = NamedSharding(meshes[0], PartitionSpec()) if meshes else next((param.sharding for param in jax.tree.leaves(params)), None)

    def like(entry: Any, param: Any) -> Any:  # noqa: ANN401  # of the state; an array-like
        more = len(getattr(entry, "shape", ())) - len(param.shape)
        cut = isinstance(param.sharding, NamedSharding) and more >= 0 and entry.shape[more:] == param.shape
        return entry if isinstance(entry, optax.MaskedNode) else with_leading(param.sharding, more) if cut else whole

    shapes = jax.tree.map(lambda param: jax.ShapeDtypeStruct(param.shape, param.dtype), params)
    return optax.tree_utils.tree_map_params(
        tx,
        like,
        jax.eval_shape(tx.init, shapes),
        params,
        transform_non_params=lambda _: whole,
        is_leaf=lambda node: isinstance(node, optax.MaskedNode),
    )


def zero_count(params: Sequence[Any], given: Sequence[Any]) -> jax.Array:
    """A count of steps, 0, on all devices of the parameters as far as they are known: else the second step would compile again."""
    told = [entry or getattr(param, "sharding", None) for param, entry in zip(params, given, strict=True)]
    meshes = [sharding.mesh for sharding in told if isinstance(sharding, NamedSharding)]
    traced = any(isinstance(param, jax.core.Tracer) for param in params)
    return jnp.zeros((), jnp.int32, device=NamedSharding(meshes[0], PartitionSpec()) if meshes and not traced else None)


def with_leading(sharding: NamedSharding, more: int) -> NamedSharding:
    """The sharding of an array with `more` leading dimensions, which are not cut."""
    entries = [*(None,) * more, *sharding.spec]
    while entries and entries[-1] is None:  # as jit writes it
        entries.pop()
    return NamedSharding(sharding.mesh, PartitionSpec(*entries), memory_kind=sharding.memory_kind)


def sharded(
    shards: Sequence[Shard], seeds: Sequence[int], leaves: Sequence[Leaf], count: jax.Array, numbers: Numbers, run: Run
) -> list[Leaf]:
    """Sharded leaves after the step, laid out as they are.

    Args:
        shards: how each leaf is cut. seeds: of their stochastic rounding. leaves: their arrays.
        count: this step's number. numbers: settings.
        run: the direction phase of pieces, hashable.
    """
    out = list(leaves)
    static, traced = numbers.split()
    eager = is_eager((leaves, count, traced))
    for mesh in dict.fromkeys(shard.mesh for shard in shards):
        members = [i for i, shard in enumerate(shards) if shard.mesh == mesh]
        step = (_jitted if eager else _step)(tuple(shards[i] for i in members), tuple(seeds[i] for i in members), static, run)
        for i, made in zip(members, step([leaves[i] for i in members], count, traced), strict=True):
            out[i] = made
    return out


def _step(shards: tuple[Shard, ...], seeds: tuple[int, ...], static: Numbers, run: Run) -> Callable[..., list[Leaf]]:
    """The step of leaves on one mesh: of them, the count and the numbers that the program computes."""
    specs = [Leaf(shard.spec, shard.spec, PartitionSpec(None, *shard.spec)) for shard in shards]  # type: ignore[arg-type]  # specs in place of arrays
    step: Callable[..., list[Leaf]] = jax.shard_map(
        _body(shards, seeds, static, run),
        mesh=shards[0].mesh,
        in_specs=(specs, PartitionSpec(), PartitionSpec()),
        out_specs=specs,
        check_vma=False,  # a kernel's results say nothing of how they vary
    )
    return step


@lru_cache(maxsize=64)
def _jitted(shards: tuple[Shard, ...], seeds: tuple[int, ...], static: Numbers, run: Run) -> Callable[..., list[Leaf]]:
    """The same for steps outside of jit, where shard_map would compile each operation anew at every call."""
    return jax.jit(_step(shards, seeds, static, run))


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
        made = run(facts, flats, count, numbers)
        for axes, members in by_axes.items() if numbers.graft != "none" else ():
            roots = combine_roots(jnp.stack([made[i].roots for i in members]), axes)
            for at, i in enumerate(members):
                made[i] = made[i]._replace(roots=roots[at])
        return [leaf.stepped(one, numbers) for leaf, one in zip(leaves, made, strict=True)]

    return body


def _exchange(shard: Shard, flats: Sequence[Flat], band: int) -> list[jax.Array]:
    """What lies beyond both ends of this device's pieces, (2, band + 3, band) each; zeros beyond the tensor.

    All pieces travel together, one permutation to either side. Those shorter than the band are served by several neighbours, hop by hop.
    """
    if not flats:
        return []
    in_order = tuple(axis for axis in shard.mesh.axis_names if axis in shard.axes)  # ppermute numbers devices in the mesh's order
    numbers = np.arange(math.prod(shard.mesh.shape[axis] for axis in in_order)).reshape([shard.mesh.shape[axis] for axis in in_order])
    device = numbers.transpose([in_order.index(axis) for axis in shard.axes]).reshape(-1).tolist()  # of every piece
    wide = jnp.promote_types(flats[0].momentum.dtype, jnp.float32)
    reach = [min(band, flat.grad.shape[0]) for flat in flats]
    sides: list[list[jax.Array]] = []
    for side in (0, 1):
        ends = []
        for f, w in zip(flats, reach, strict=True):  # cut first: whole fields are as large as the state
            end = slice(f.grad.shape[0] - w, None) if side == 0 else slice(w)
            ends.append(jnp.concatenate([x.astype(wide) for x in (f.momentum[None, end], f.stats[:, end], f.grad[None, end])]))
        got = [end[:, :0] for end in ends]
        for hop in range(1, -(-band // min(reach)) + 1):
            served = [i for i, w in enumerate(reach) if (hop - 1) * w < band]
            sent = jnp.concatenate([ends[i].reshape(-1) for i in served])
            steps = list(zip(device, device[hop:], strict=False))
            received = lax.ppermute(sent, in_order, steps if side == 0 else [(right, left) for left, right in steps])
            borders = [sum(ends[j].size for j in served[: k + 1]) for k in range(len(served) - 1)]
            for i, part in zip(served, jnp.split(received, borders), strict=True):
                piece = part.reshape(ends[i].shape)
                got[i] = jnp.concatenate((piece, got[i]) if side == 0 else (got[i], piece), 1)
        sides.append([g[:, g.shape[1] - band :] if side == 0 else g[:, :band] for g in got])
    return [jnp.stack(pair) for pair in zip(*sides, strict=True)]
