"""Sharded tensors: which part a rank holds, when it is one run of the flat order, and what neighbours must tell each other.

A direction needs the windows of the band elements before it, a window reaches band elements on. So a piece [start, end) of a
tensor needs the old averages and the gradient of the band elements before its start and of the band elements from its end on,
as far as the chains of its first and last element reach. Nothing here knows a framework: a rank is a number, a tensor a shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sonew.config import Chain, chain_length
from sonew.errors import UnsupportedProblemError

Intervals = tuple[tuple[int, int], ...]  # half-open, sorted, disjoint, never adjacent

LEFT: Final = 0
RIGHT: Final = 1


@dataclass(frozen=True, slots=True)
class Split:
    """How one mesh dimension cuts a tensor.

    Attributes:
        dim: the tensor dimension it cuts, 0 <= dim < len(shape); None: every rank along it holds the same (a replica).
        parts: size of the mesh dimension.
        factor: above 1, torch's `_StridedShard(dim, split_factor=factor)`: the dimension counts as already cut in `factor` chunks,
            of which each is cut into `parts`; a rank holds one part of each chunk.
    """

    dim: int | None
    parts: int
    factor: int = 1


@dataclass(frozen=True, slots=True)
class Piece:
    """One rank's contiguous piece of a tensor, as kernels see it (`sonew_kernels.spec.Column`), in elements.

    Attributes:
        length: elements here. start: position of the first in the tensor, 0 where there is none.
        total: elements of the tensor. chain: elements per chain.
    """

    length: int
    start: int
    total: int
    chain: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """Consecutive elements that one rank copies into the halo of another.

    Attributes:
        tensor: index of the tensor. peer: the other rank.
        side: LEFT or RIGHT, the halo of the receiver. Position q of the left one is element start - band + q, of the right one end + q.
        offset: first position in that halo, 0 to band - 1. count: how many elements.
        local: first element in the sender's piece; -1 where this rank receives.
    """

    tensor: int
    peer: int
    side: int
    offset: int
    count: int
    local: int


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a rank sends and receives, both by peer, then tensor, side, offset.

    Both ends list the transfers of a pair in the same order, so one flat buffer per pair needs no header.
    """

    sends: tuple[Transfer, ...]
    receives: tuple[Transfer, ...]


@dataclass(frozen=True, slots=True)
class _Cut:
    """What holds on all ranks: is every part one run; of which lengths may chains be that no border of a run cuts (divisors of grain)."""

    contiguous: bool
    grain: int


def local_intervals(shape: Sequence[int], splits: Sequence[Split], coordinate: Sequence[int]) -> tuple[Intervals, ...]:
    """The indices a rank holds, per tensor dimension; its part is their product, in the same order as the tensor.

    Args:
        shape: of the whole tensor.
        splits: one per mesh dimension, applied left to right, by the rules of `torch.chunk`: chunks of ceil(n / parts), later
            ones shorter or empty.
        coordinate: the rank's place in the mesh, one index per mesh dimension.

    Returns:
        Half-open intervals, merged and sorted; none where the rank holds nothing.
    """
    held: list[Intervals] = [((0, n),) if n else () for n in shape]
    for split, index in zip(splits, coordinate, strict=True):
        if split.dim is not None:
            held[split.dim] = _chunk(held[split.dim], split, index)
    return tuple(held)


def place(shape: Sequence[int], splits: Sequence[Split], coordinate: Sequence[int], chain: Chain, band: int) -> Piece:
    """The piece that a rank's part is.

    One run of the flat order is a piece of the whole tensor and keeps its positions. Several runs are a tensor of their own
    if no chain crosses a border of any rank's runs, or if nothing couples neighbours (band 0).

    Args:
        shape, splits, coordinate: as for `local_intervals`.
        chain, band: settings of the method, as in `sonew.config.Hyper`.

    Raises:
        UnsupportedProblemError: neither holds on every rank. All ranks come to the same verdict: one that went on alone would wait
            forever.
    """
    return _place(tuple(shape), tuple(splits), tuple(coordinate), chain, band)


def is_contiguous_everywhere(shape: Sequence[int], splits: Sequence[Split]) -> bool:
    """Whether every rank's part is one run of the flat order, or empty: then all elements keep their positions."""
    return _cut(tuple(shape), tuple(splits)).contiguous


def halo_exchange(pieces: Sequence[Sequence[Piece]], band: int, me: int) -> Exchange:
    """What rank `me` sends and receives so that every rank can step its pieces.

    A halo comes from several ranks where pieces are shorter than the band; what lies beyond a chain's end is not sent.

    Args:
        pieces: of every rank and tensor, from `place` with the same settings; those of a tensor are disjoint (one of each replica).
        band: off-diagonals kept.
        me: index into `pieces`.
    """
    sends, receives = [], []
    for tensor, mine in enumerate(pieces[me]):
        end = mine.start + mine.length
        if not mine.length or not band or (mine.start % mine.chain == 0 and (end % mine.chain == 0 or end == mine.total)):
            continue  # no chain crosses a border of this piece: nobody needs any of it, it needs nobody
        for peer, row in enumerate(pieces):
            other = row[tensor]
            if other.start - end >= band or mine.start - (other.start + other.length) >= band or not other.length:
                continue
            side = LEFT if other.start < mine.start else RIGHT
            low, high = _overlap(mine, other, band, side)
            if low < high:
                receives.append(Transfer(tensor, peer, side, low - _halo_start(mine, band, side), high - low, -1))
            side = RIGHT - side
            low, high = _overlap(other, mine, band, side)
            if low < high:
                sends.append(Transfer(tensor, peer, side, low - _halo_start(other, band, side), high - low, low - mine.start))
    return Exchange(tuple(sorted(sends, key=_order)), tuple(sorted(receives, key=_order)))


def _order(transfer: Transfer) -> tuple[int, int, int, int]:
    return transfer.peer, transfer.tensor, transfer.side, transfer.offset


def _halo_start(piece: Piece, band: int, side: int) -> int:
    return piece.start - band if side == LEFT else piece.start + piece.length


def _overlap(receiver: Piece, sender: Piece, band: int, side: int) -> tuple[int, int]:
    """The elements of the sender that a halo of the receiver needs, as an interval of the tensor; none if it is not ascending."""
    if side == LEFT:
        first = receiver.start
        low, high = max(first - band, first - first % receiver.chain), first
    else:
        low = receiver.start + receiver.length
        chain_end = low + -low % receiver.chain  # of the chain of element low - 1; nobody holds what is beyond the tensor
        high = min(low + band, chain_end)
    return max(low, sender.start), min(high, sender.start + sender.length)


def _size(intervals: Intervals) -> int:
    return sum(high - low for low, high in intervals)


def _chunk(held: Intervals, split: Split, index: int) -> Intervals:
    """The part with this index of the indices held, which count as numbered from 0 without gaps."""
    size = _size(held)
    outer = -(-size // split.factor)
    part: list[tuple[int, int]] = []
    for chunk in range(split.factor):
        begin = min(chunk * outer, size)
        count = min(outer, size - begin)
        inner = -(-count // split.parts)
        low, high = begin + min(index * inner, count), begin + min((index + 1) * inner, count)
        before = 0  # indices held in earlier intervals
        for left, right in held:
            a, b = max(left, left + low - before), min(right, left + high - before)
            if a < b:
                if part and part[-1][1] == a:
                    part[-1] = (part[-1][0], b)
                else:
                    part.append((a, b))
            before += right - left
    return tuple(part)


@lru_cache(maxsize=4096)  # a model's tensors have few shapes, and a caller may ask for every tensor and rank
def _place(shape: tuple[int, ...], splits: tuple[Split, ...], coordinate: tuple[int, ...], chain: Chain, band: int) -> Piece:
    whole_chain = chain_length(chain, shape)
    cut = _cut(shape, splits)
    if band and not cut.contiguous and cut.grain % whole_chain:
        raise UnsupportedProblemError(_refusal(shape, splits, chain, band))
    held = local_intervals(shape, splits, coordinate)
    sizes = tuple(_size(intervals) for intervals in held)
    length = math.prod(sizes)
    if length == 0:
        return Piece(0, 0, math.prod(shape), whole_chain)
    first, last, stride = 0, 0, 1
    for n, intervals in zip(reversed(shape), reversed(held), strict=True):
        first += intervals[0][0] * stride
        last += (intervals[-1][1] - 1) * stride
        stride *= n
    if last - first + 1 == length:
        return Piece(length, first, stride, whole_chain)
    return Piece(length, 0, length, chain_length(chain, sizes))


@lru_cache(maxsize=4096)  # asked for every rank
def _cut(shape: tuple[int, ...], splits: tuple[Split, ...]) -> _Cut:
    """Judge all ranks at once, in time linear in their number: a rank's part is a product, so dimensions are judged one by one.

    A part is one run if it holds one interval of the last dimension that it does not hold whole, and one index of each before.
    Borders of runs lie in that dimension; those of earlier ones are multiples of its rows and change no divisor.
    """
    contiguous, grain, inner, later_whole = True, 0, 1, True
    if 0 in shape:
        return _Cut(contiguous, grain)
    for dim, n in reversed(tuple(enumerate(shape))):
        parts: set[Intervals] = {((0, n),)}
        for split in splits:
            if split.dim == dim:
                parts = {_chunk(part, split, index) for part in parts for index in range(split.parts)}
        parts.discard(())
        contiguous &= all(len(part) == 1 and (later_whole or _size(part) == 1) for part in parts)
        if parts != {((0, n),)}:
            edges = {edge for part in parts for interval in part for edge in interval}
            if math.prod(shape[:dim]) == 1:
                edges.remove(n)  # the tensor's end, where the last chain ends whatever its length
            grain = math.gcd(grain, *(edge * inner for edge in edges))
            later_whole = False
        inner *= n
    return _Cut(contiguous, grain)


def _refusal(shape: tuple[int, ...], splits: tuple[Split, ...], chain: Chain, band: int) -> str:
    cuts = ", ".join(_describe(split) for split in splits)
    grain = _cut(shape, splits).grain
    fixes = ['chain="row"'] if grain % chain_length("row", shape) == 0 else []
    if grain > 1:
        fixes.append(f"an integer chain that divides {grain}")
    fixes += ["Shard(0), which leaves every part in one run", "band=0"]
    return (
        f"A tensor of shape {shape} cut by [{cuts}] lies on some rank in several runs, and chains of {chain_length(chain, shape)} elements "
        f"(chain={chain!r}) cross their borders: band={band} is exact only where each part is one run or runs end with chains. "
        f"Use {', or '.join(fixes)}."
    )


def _describe(split: Split) -> str:
    if split.dim is None:
        return f"Replicate() over {split.parts}"
    kind = f"Shard({split.dim})" if split.factor == 1 else f"_StridedShard({split.dim}, split_factor={split.factor})"
    return f"{kind} over {split.parts}"
