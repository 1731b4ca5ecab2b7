"""Tensors cut into pieces, as sharding cuts them, with what lies beyond the cuts brought by hand: the same bits as the whole."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from sonew.backends.table import Leaf
from sonew.backends.triton_torch import StepGroup
from sonew.config import Chain, Hyper, Plan, Problem
from sonew_kernels.spec import Column
from tests.kernels.interpreter.harness import Group, config, guarded
from tests.kernels.interpreter.joined import Joined, Part, outside

BLOCK = 64
BF16 = torch.bfloat16


def fields_of(group: Group, i: int) -> np.ndarray:
    """Momentum, stats and gradient of tensor i before its step, (band + 3, n) float32."""
    leaf = group.leaves[i]
    return torch.cat((leaf.momentum[None].float(), leaf.stats.float(), group.grads[i][None])).numpy().copy()


def check_table(whole: Group, cuts: tuple[int, ...]) -> None:
    """The pieces of a group's one tensor between these positions, side by side in a table of their own, give the bits of the whole."""
    old, band, fields = whole.leaves[0], whole.hyper.band, fields_of(whole, 0)
    total, state, count = whole.sizes[0], old.momentum.dtype, old.count.item()
    inside = [slice(start, end) for start, end in pairwise((0, *cuts, total))]
    leaves = []
    for part in inside:
        param, momentum, stats = torch.zeros(part.stop - part.start), guarded(fields[0, part], state), guarded(fields[1:-1, part], state)
        step = torch.tensor(count, dtype=torch.int32)
        leaves.append(Leaf(param, momentum, stats, step, old.chain, old.seed, start=part.start, total=total))
    problem = Problem(device="cpu", band=band, state_dtype=str(state).removeprefix("torch."), total=total, median=total)
    stepper = StepGroup(leaves, Plan(problem=problem, backend="triton", config=config(BLOCK), provenance="test"))
    table = stepper.table
    table.edges.fill_(float("nan"))
    table.outer.fill_(float("nan"))
    stepper.set_hyper(whole.hyper)
    grads = [guarded(fields[-1, part]) for part in inside]
    stepper.bind(grads)
    stepper.prologue()
    for i, part in enumerate(inside):
        for side, beyond in enumerate(outside(fields, part.start, part.stop, band)):
            state_there, grads_there = table.halo(i, side)
            state_there.copy_(beyond[:-1])
            grads_there.copy_(beyond[-1])
    stepper.direction()
    whole.run()
    for part, leaf, offset in zip(inside, leaves, table.rows[:, Column.OFFSET].tolist(), strict=True):
        u = table.direction[offset : offset + leaf.param.numel()]
        torch.testing.assert_close(u, torch.from_numpy(whole.direction(0)[part]), rtol=0, atol=0)
        assert torch.equal(leaf.momentum, old.momentum[part])
        assert torch.equal(leaf.stats, old.stats[:, part])


@pytest.mark.parametrize(
    ("band", "chain", "cuts"),
    [
        (3, "tensor", (77,)),
        (3, "tensor", (BLOCK - 3 + 1,)),  # a last tile of one element: the tile before it sees past the piece's end
        (2, 7, (100, 198)),  # a last piece shorter than the halo's reach
        (1, 1000, (1, 2, 64)),
        (8, "tensor", (56, 120)),
        (0, "tensor", (99,)),
    ],
)
def test_pieces_of_any_length_give_the_bits_of_the_whole(band: int, chain: Chain, cuts: tuple[int, ...]) -> None:
    """Direction, momentum and stats of the table entry, piece by piece."""
    check_table(Group((200,), Hyper(band=band, chain=chain), block=BLOCK), cuts)


def shards(whole: Group, number: int, cut: tuple[bool, ...], devices: int = 4) -> Joined:
    """What device `number` of so many holds: its part of each tensor that is cut, and every other one whole."""
    parts = []
    for i, (leaf, size) in enumerate(zip(whole.leaves, whole.sizes, strict=True)):
        fields, piece = fields_of(whole, i), number if cut[i] else 0
        length = size // devices if cut[i] else size
        start, end = piece * length, (piece + 1) * length
        mine = torch.from_numpy(fields[:, start:end])
        state = mine[:-1].to(leaf.momentum.dtype)
        beyond = outside(fields, start, end, whole.hyper.band)
        part = Part(
            grad=mine[-1], momentum=state[0], stats=state[1:], chain=leaf.chain, seed=leaf.seed, total=size, number=piece, outside=beyond
        )
        parts.append(part)
    table, count = whole.stepper.table, int(whole.leaves[0].count) + 1
    return Joined(parts, table.hyper, count, block=whole.block, graft=whole.hyper.graft, pieces=True)


@pytest.mark.parametrize(
    ("band", "chain", "sizes", "cut", "state"),
    [
        (1, "tensor", (400, 60, 8), (True, False, True), torch.float32),
        (2, 7, (4 * (BLOCK - 2 + 1), 4), (True, True), BF16),  # a last tile of one element; pieces of one element
        (3, 100, (77, 4, 400), (False, True, True), torch.float32),
        (8, "tensor", (240, 20), (True, True), torch.float32),  # pieces shorter than the band
        (0, "tensor", (400, 3), (True, False), BF16),
        pytest.param(16, 50, (800, 40), (True, True), BF16, marks=pytest.mark.full),
    ],
)
def test_shards_of_joined_tensors_give_the_bits_of_the_whole(
    band: int, chain: Chain, sizes: tuple[int, ...], cut: tuple[bool, ...], state: torch.dtype
) -> None:
    """On each of four devices."""
    check_shards(Group(sizes, Hyper(band=band, chain=chain), block=max(BLOCK, 8 * band), state_dtype=state), cut, 4)


def check_shards(whole: Group, cut: tuple[bool, ...], number_of_devices: int) -> None:
    """Direction, momentum and stats of the direct entry on each device, in place and not; norms from all roots."""
    devices = [shards(whole, number, cut, number_of_devices) for number in range(number_of_devices)]
    whole.run()
    for number, device in enumerate(devices):
        device.run(in_place=number % 2 == 1)
        for i, leaf in enumerate(whole.leaves):
            momentum, stats, u = device.outcome(i)
            start = number * momentum.numel() if cut[i] else 0
            part = slice(start, start + momentum.numel())
            assert torch.equal(momentum, leaf.momentum[part]), (number, i)
            assert torch.equal(stats, leaf.stats[:, part]), (number, i)
            np.testing.assert_array_equal(u.numpy(), whole.direction(i)[part])
        assert device.intact()
    fourth = torch.stack([device.roots.double() for device in devices]).pow(4)
    for i, scale in enumerate(whole.stepper.table.scales.tolist()):
        u_square, a_square = (fourth[:, i].sum(0) if cut[i] else fourth[0, i]).tolist()
        assert scale == pytest.approx((a_square / u_square) ** 0.25, rel=1e-6)


@pytest.mark.parametrize(("band", "sizes"), [(1, (400, 8)), (3, (4 * (BLOCK - 3), 4, 0))])
def test_outer_halves_of_records_come_from_beyond_the_piece(band: int, sizes: tuple[int, ...]) -> None:
    """Every half of a record at a piece's ends, and no other half than those around its tile borders, is written."""
    whole = Group(sizes, Hyper(band=band), block=BLOCK, state_dtype=BF16)
    device = shards(whole, 1, (True,) * len(sizes))
    device.prologue()
    want = torch.full_like(device.edges, float("nan"))
    first = 0
    for i, length in enumerate(device.lengths):
        fields = np.pad(fields_of(whole, i)[:-1], ((0, 0), (band, band)), constant_values=np.nan)
        tiles = max(1, -(-length // (BLOCK - band)))
        for k, border in enumerate([*range(0, length, BLOCK - band), length] if length else [0, 0]):
            record = torch.from_numpy(fields[:, length + border :][:, : 2 * band])  # of the whole: the piece is its second quarter
            kept = record[:, :band] if k == 0 else record[:, band:] if k == tiles else record[:, : band + length - border]
            begin = band if k == tiles else 0
            want[first + k, :, begin : begin + kept.shape[1]] = kept.to(BF16)
        first += tiles + 1
    torch.testing.assert_close(device.edges, want, rtol=0, atol=0, equal_nan=True)


def test_a_piece_far_inside_a_huge_tensor() -> None:
    """Positions beyond 2^32: a piece moved by a multiple of its chain length gives the same bits."""
    band, length, chain = 2, 150, 1000
    group = Group((length,), Hyper(band=band, chain=chain), block=BLOCK)
    leaf, outcomes = group.leaves[0], []
    for number in (6, 6 + 20 * 2**26):  # 20 pieces are 3 chains
        part = Part(
            grad=group.grads[0],
            momentum=leaf.momentum,
            stats=leaf.stats,
            chain=chain,
            total=(number + 30) * length,
            number=number,
            outside=torch.zeros(2, band + 3, band),
        )
        joined = Joined([part], group.stepper.table.hyper, int(leaf.count), block=BLOCK, pieces=True)
        joined.run()
        outcomes.append((*joined.outcome(0), joined.partials))
    assert torch.isfinite(outcomes[0][2]).all()
    assert all(torch.equal(near, far) for near, far in zip(*outcomes, strict=True))
    assert (outcomes[1][1][1:, 99] == 0).all()  # position 999 ends its chain
