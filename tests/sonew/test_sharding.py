"""Parts of sharded tensors are those of torch, pieces and halos those of the definition, spelled out with sets of indices."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import example, given
from hypothesis import strategies as st
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard
from torch.testing._internal.distributed.fake_pg import FakeStore

from sonew.config import Chain, chain_length
from sonew.errors import UnsupportedProblemError
from sonew.sharding import LEFT, RIGHT, Piece, Split, Transfer, halo_exchange, is_contiguous_everywhere, local_intervals, place
from tests.strategies import bands, chains

Cut = tuple[tuple[int, ...], tuple[Split, ...]]


@st.composite
def cuts(draw: st.DrawFn) -> Cut:
    """A shape with at most 300 elements and the splits of a mesh of up to 3 dimensions, uneven and empty parts included."""
    shape = tuple(draw(st.lists(st.integers(0, 7) | st.just(12), max_size=3).filter(lambda axes: math.prod(axes) <= 300)))
    dims = st.sampled_from([None, *range(len(shape)), *([0] if shape else [])])
    splits = st.builds(Split, dims, st.integers(1, 4), st.sampled_from([1, 1, 2, 3]))
    return shape, tuple(draw(st.lists(splits, max_size=3)))


def coordinates(splits: Sequence[Split]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*(range(split.parts) for split in splits))


def placements(splits: Sequence[Split]) -> list[Any]:
    """The same as torch's placements."""
    return [
        Replicate() if s.dim is None else Shard(s.dim) if s.factor == 1 else _StridedShard(s.dim, split_factor=s.factor) for s in splits
    ]


def torch_part(shape: Sequence[int], splits: Sequence[Split], coordinate: Sequence[int]) -> torch.Tensor:
    """Positions in the flat order of the elements that torch leaves on a rank."""
    part = torch.arange(math.prod(shape)).reshape(tuple(shape))
    for split, index, placement in zip(splits, coordinate, placements(splits), strict=True):
        if split.dim is not None:
            part = placement._split_tensor(part, split.parts, with_padding=False)[0][index]
    return part


def runs(part: torch.Tensor) -> list[tuple[int, int]]:
    """The runs of a set of positions, half-open."""
    held = part.flatten().tolist()
    borders = [i for i in range(1, len(held)) if held[i] != held[i - 1] + 1]
    return [(held[a], held[b - 1] + 1) for a, b in itertools.pairwise([0, *borders, len(held)]) if a < b]


@given(cuts())
@example(((5,), (Split(0, 4),)))
@example(((9,), (Split(0, 4, 2),)))
@example(((8, 3), (Split(0, 2), Split(0, 2, 2), Split(0, 2))))
def test_intervals_are_the_parts_of_torch(cut: Cut) -> None:
    shape, splits = cut
    for coordinate in coordinates(splits):
        held = local_intervals(shape, splits, coordinate)
        indices = [[i for low, high in intervals for i in range(low, high)] for intervals in held]
        strides = [math.prod(shape[dim + 1 :]) for dim in range(len(shape))]
        flat = [sum(i * stride for i, stride in zip(element, strides, strict=True)) for element in itertools.product(*indices)]
        part = torch_part(shape, splits, coordinate)
        assert tuple(map(len, indices)) == tuple(part.shape)
        assert flat == part.flatten().tolist()
        for intervals in held:  # merged
            assert all(low < high for low, high in intervals)
            assert all(before[1] < after[0] for before, after in itertools.pairwise(intervals))


@pytest.mark.parametrize("rank", range(6))
def test_a_dtensor_holds_these_intervals(rank: int) -> None:
    """Splits apply left to right on a mesh as they do in `torch_part`; 11 and 7 leave uneven and empty parts."""
    dist.init_process_group("fake", rank=rank, world_size=6, store=FakeStore())
    try:
        mesh = init_device_mesh("cpu", (3, 2))
        coordinate = divmod(rank, 2)
        for shape, dims in itertools.product([(11, 2), (7, 3)], itertools.product([(0, 1), (0, 2), (1, 1), (None, 1)], repeat=2)):
            splits = [Split(dim, parts, factor) for (dim, factor), parts in zip(dims, (3, 2), strict=True)]
            whole = torch.arange(math.prod(shape)).reshape(shape)
            tensor = distribute_tensor(whole, mesh, placements(splits), src_data_rank=None)
            assert isinstance(tensor, DTensor)
            rows, columns = ([i for low, high in held for i in range(low, high)] for held in local_intervals(shape, splits, coordinate))
            assert torch.equal(tensor.to_local(), whole[rows][:, columns])
    finally:
        dist.destroy_process_group()


def verdict(shape: Sequence[int], splits: Sequence[Split], coordinate: Sequence[int], chain: Chain, band: int) -> Piece | None:
    """The piece, None where it is refused."""
    try:
        return place(shape, splits, coordinate, chain, band)
    except UnsupportedProblemError:
        return None


@given(cuts(), chains(), bands(2))
@example(((6, 4), (Split(1, 2),)), "row", 1)
@example(((6, 4), (Split(1, 2),)), 2, 1)
@example(((3, 4), (Split(0, 2), Split(1, 2))), 2, 1)  # one run on some ranks, several on others
@example(((3, 4), (Split(0, 3), Split(1, 2))), "tensor", 1)  # part of one row: one run
@example(((2, 3), (Split(1, 2),)), 2, 1)  # 3 is a border too
@example(((7,), (Split(0, 2, 2),)), 2, 1)  # the last chain is shorter
@example(((6, 4), (Split(1, 2),)), "tensor", 0)
@example(((2, 3, 4), (Split(1, 2),)), "row", 1)
def test_a_piece_is_one_run_or_a_tensor_whose_chains_are_whole(cut: Cut, chain: Chain, band: int) -> None:
    shape, splits = cut
    total, length = math.prod(shape), chain_length(chain, tuple(shape))
    parts = {coordinate: torch_part(shape, splits, coordinate) for coordinate in coordinates(splits)}
    found = {coordinate: runs(part) for coordinate, part in parts.items()}
    contiguous = all(len(pieces) <= 1 for pieces in found.values())
    borders = {border for pieces in found.values() for run in pieces for border in run} - {total}
    assert is_contiguous_everywhere(shape, splits) == contiguous
    allowed = contiguous or band == 0 or all(border % length == 0 for border in borders)
    for coordinate, part in parts.items():
        piece = verdict(shape, splits, coordinate, chain, band)
        assert (piece is not None) == allowed  # on every rank, whatever it holds itself
        if piece is None:
            continue
        match found[coordinate]:
            case []:
                assert piece == Piece(0, 0, total, length)
            case [(start, end)]:
                assert piece == Piece(end - start, start, total, length)
            case _:
                assert piece == Piece(part.numel(), 0, part.numel(), chain_length(chain, tuple(part.shape)))
                if band:  # neighbours in one local chain are neighbours in one chain of the tensor, and the other way round
                    local = [[i // piece.chain for i in range(piece.length)], [i // length for i in part.flatten().tolist()]]
                    assert len(set(zip(*local, strict=True))) == len(set(local[0])) == len(set(local[1]))


@pytest.mark.parametrize(
    ("shape", "splits", "chain", "fixes"),
    [
        ((6, 8), (Split(1, 2),), "tensor", ["an integer chain that divides 4"]),
        ((4, 6, 8), (Split(1, 2), Split(None, 3)), "tensor", ['chain="row"', "an integer chain that divides 24"]),
        ((12,), (Split(0, 2, 2),), 5, ["an integer chain that divides 3"]),
        ((3, 3), (Split(1, 3),), "row", []),
    ],
)
def test_a_refusal_says_what_is_wrong_and_its_fixes_work(
    shape: tuple[int, ...], splits: tuple[Split, ...], chain: Chain, fixes: list[str]
) -> None:
    with pytest.raises(UnsupportedProblemError) as refused:
        place(shape, splits, [0] * len(splits), chain, 2)
    message = str(refused.value)
    offered = message.partition("Use ")[2].rstrip(".")
    assert offered == ", or ".join([*fixes, "Shard(0), which leaves every part in one run", "band=0"])
    for named in (str(shape), f"chain={chain!r}", "band=2", *(f"over {split.parts}" for split in splits)):
        assert named in message
    assert verdict(shape, splits, [0] * len(splits), chain, 0) is not None
    assert verdict(shape, [Split(0, split.parts) for split in splits], [0] * len(splits), chain, 2) is not None
    for fix in fixes:
        tried: Chain = "row" if "row" in fix else int(fix.split()[-1])
        assert verdict(shape, splits, [0] * len(splits), tried, 2) is not None


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[list[Piece]], int]:
    """(pieces[rank][tensor], band): tensors cut at any places, so that halos span several ranks, their pieces dealt in any order."""
    ranks, band = draw(st.integers(1, 5)), draw(bands(4))
    columns = []
    for _ in range(draw(st.integers(1, 3))):
        total = draw(st.integers(0, 14))
        chain = draw(st.sampled_from([max(total, 1), 1, 2, 3, 5, 20]))
        inner = draw(st.lists(st.integers(0, total), min_size=ranks - 1, max_size=ranks - 1))
        column = [Piece(b - a, a, total, chain) for a, b in itertools.pairwise(sorted([0, *inner, total]))]
        columns.append(draw(st.permutations(column)))
    return [list(row) for row in zip(*columns, strict=True)], band


def demanded(piece: Piece, band: int) -> set[tuple[int, int]]:
    """(side, element) of everything beyond the piece that its directions need: the definition, element by element."""
    first, end = piece.start, piece.start + piece.length
    if not piece.length:
        return set()
    left = {(LEFT, i) for i in range(first - band, first) if i >= 0 and i // piece.chain == first // piece.chain}
    right = {(RIGHT, i) for i in range(end, end + band) if i < piece.total and i // piece.chain == (end - 1) // piece.chain}
    return left | right


def check_transfers(pieces: Sequence[Sequence[Piece]], band: int) -> None:
    """Carry out what every rank lists; every halo holds what is demanded, elements being called by tensor and position."""
    exchanges = [halo_exchange(pieces, band, me) for me in range(len(pieces))]
    halos: dict[tuple[int, int], dict[tuple[int, int], tuple[int, int]]] = {
        (rank, tensor): {} for rank, row in enumerate(pieces) for tensor in range(len(row))
    }
    for sender, receiver in itertools.product(range(len(pieces)), repeat=2):
        sends = [t for t in exchanges[sender].sends if t.peer == receiver]
        receives = [t for t in exchanges[receiver].receives if t.peer == sender]
        buffer = [  # without a header: the receiver reads it by its own list alone
            (t.tensor, range(pieces[sender][t.tensor].start, pieces[sender][t.tensor].start + pieces[sender][t.tensor].length)[i])
            for t in sends
            for i in range(t.local, t.local + t.count)
        ]
        assert [mirrored(t) for t in sends] == [mirrored(t) for t in receives]
        assert all(t.local == -1 and t.count > 0 for t in receives)
        stream = iter(buffer)
        for t in receives:
            for q in range(t.offset, t.offset + t.count):
                assert 0 <= q < band
                assert (t.side, q) not in halos[receiver, t.tensor]
                halos[receiver, t.tensor][t.side, q] = next(stream)
        assert list(stream) == []
    for (rank, tensor), halo in halos.items():
        piece = pieces[rank][tensor]
        base = {LEFT: piece.start - band, RIGHT: piece.start + piece.length}
        assert halo == {(side, i - base[side]): (tensor, i) for side, i in demanded(piece, band)}
    for exchange in exchanges:
        for side in (exchange.sends, exchange.receives):
            assert list(side) == sorted(side, key=lambda t: (t.peer, t.tensor, t.side, t.offset))


def mirrored(transfer: Transfer) -> tuple[int, int, int, int]:
    return transfer.tensor, transfer.side, transfer.offset, transfer.count


@given(worlds())
@example(([[Piece(1, i, 6, 6)] for i in range(6)], 4))  # every halo comes from several ranks
@example(([[Piece(3, 0, 7, 5)], [Piece(4, 3, 7, 5)]], 3))  # a chain ends inside the right neighbour
def test_every_rank_gets_exactly_what_its_directions_need(world: tuple[list[list[Piece]], int]) -> None:
    check_transfers(*world)


@given(cuts(), chains(), bands(3))
@example(((3, 4), (Split(0, 2), Split(1, 2))), 2, 1)  # tensors of their own beside pieces of the whole one
@example(((7,), (Split(0, 2, 2),)), 2, 1)  # tensors of their own whose last chain is shorter
def test_placed_pieces_exchange_what_their_directions_need(cut: Cut, chain: Chain, band: int) -> None:
    shape, splits = cut
    sharded = [split for split in splits if split.dim is not None]  # one of each replica
    placed = [verdict(shape, sharded, coordinate, chain, band) for coordinate in coordinates(sharded)]
    pieces = [piece for piece in placed if piece is not None]
    assert len(pieces) in (0, len(placed))
    check_transfers([[piece] for piece in pieces], band)
