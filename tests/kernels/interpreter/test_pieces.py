"""A tensor cut into pieces, as sharding cuts it, with the border records at the cuts filled by hand: the same bits as the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sonew.config import Chain, Hyper
from sonew_kernels.direction import direction_direct
from sonew_kernels.prologue import prologue_direct
from sonew_kernels.spec import Graft, Storage, border_record, outer_gradients, triton_launches
from tests.kernels.interpreter.harness import Group, config

BLOCK = 64
NO_SEED = torch.zeros((), dtype=torch.int32)
FLOAT32 = {"STATE_STORAGE": int(Storage.FLOAT32), "DIRECTION_STORAGE": int(Storage.FLOAT32)}


def fill_from_neighbours(edges: torch.Tensor, outer: torch.Tensor, fields: np.ndarray, *, start: int, end: int, band: int) -> None:
    """What a neighbour would send: the 2 * band old elements around each end of the piece, and the gradients beyond them.

    `fields` (band + 3, total): momentum, stats, gradient.
    """
    total = fields.shape[1]
    for record, border in ((edges[0], start), (edges[-1], end)):
        near = np.arange(border - band, border + band)
        inside = (near >= 0) & (near < total)
        record[:, torch.from_numpy(inside)] = torch.from_numpy(fields[:-1, near[inside]])
    for side, begin in zip(outer, (start - band, end), strict=True):
        near = np.arange(begin, begin + band)
        inside = (near >= 0) & (near < total)
        side[torch.from_numpy(inside)] = torch.from_numpy(fields[-1, near[inside]])


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
def test_pieces_give_the_bits_of_the_whole(band: int, chain: Chain, cuts: tuple[int, ...]) -> None:
    """Direction, momentum and stats, piece by piece."""
    total = 200
    group = Group((total,), Hyper(band=band, chain=chain), block=BLOCK)
    leaf, table = group.leaves[0], group.stepper.table
    fields = torch.cat((leaf.momentum[None], leaf.stats, group.grads[0][None])).numpy().copy()
    group.stepper.prologue()
    group.stepper.direction()

    launches = triton_launches(config(BLOCK).as_dict(), band)
    for start, end in zip((0, *cuts), (*cuts, total), strict=True):
        length = end - start
        tiles = -(-length // (BLOCK - band))
        old = torch.from_numpy(fields[:, start:end].copy())
        momentum, stats, grad = old[0].clone(), old[1:-1].clone(), old[-1].clone()
        edges = torch.full((tiles + 1, *border_record(band)), float("nan"))
        outer = torch.full(outer_gradients(band), float("nan"))
        count, corrections = torch.tensor(leaf.count.item() - 1, dtype=torch.int32), torch.full((2,), float("nan"))
        prologue_direct[(1,)](momentum, stats, count, table.hyper, count, corrections, edges, length, **launches["prologue"].constants)
        if band:
            fill_from_neighbours(edges, outer, fields, start=start, end=end, band=band)
        direction = torch.full((length,), float("nan"))
        partials = torch.full((tiles, 2), float("nan"), dtype=torch.float64)
        where = {"length": length, "start": start, "total": total, "chain": leaf.chain}
        facts = {"GRAFT": int(Graft.ADAM), "CHAINED": leaf.chain < total, "PIECES": True, **FLOAT32}
        state = (momentum, stats, edges, outer, corrections, table.hyper, NO_SEED, count, momentum, stats)
        direction_direct[(tiles,)](grad, *state, direction, partials, **where, **facts, **launches["direction"].constants)

        np.testing.assert_array_equal(direction.numpy(), group.direction(0)[start:end])
        np.testing.assert_array_equal(momentum.numpy(), leaf.momentum[start:end].numpy())
        np.testing.assert_array_equal(stats.numpy(), leaf.stats[:, start:end].numpy())


def test_a_piece_far_inside_a_huge_tensor() -> None:
    """Positions beyond 2^32: a piece moved by a multiple of its chain length gives the same bits."""
    band, length, chain = 2, 150, 1000
    group = Group((length,), Hyper(band=band, chain=chain), block=BLOCK)
    leaf, table = group.leaves[0], group.stepper.table
    group.stepper.prologue()
    launches = triton_launches(config(BLOCK).as_dict(), band)
    table.edges.nan_to_num_(0.0)
    table.outer.zero_()
    outcomes = []
    for start, total in ((900, 5000), (900 + chain * 2**33, chain * 2**34)):
        momentum, stats = torch.zeros_like(leaf.momentum), torch.zeros_like(leaf.stats)
        direction = torch.full((length,), float("nan"))
        partials = torch.full((len(table.tiles), 2), float("nan"), dtype=torch.float64)
        state = (
            leaf.momentum,
            leaf.stats,
            table.edges,
            table.outer,
            table.corrections[0],
            table.hyper,
            NO_SEED,
            leaf.count,
            momentum,
            stats,
        )
        where = {"length": length, "start": start, "total": total, "chain": chain}
        facts = {"GRAFT": int(Graft.ADAM), "CHAINED": True, "PIECES": True, **FLOAT32}
        direction_direct[(len(table.tiles),)](
            group.grads[0], *state, direction, partials, **where, **facts, **launches["direction"].constants
        )
        outcomes.append((direction, momentum, stats, partials))
    assert torch.isfinite(outcomes[0][0]).all()
    assert all(torch.equal(near, far) for near, far in zip(*outcomes, strict=True))
    assert (outcomes[1][2][1:, 99] == 0).all()  # position 999 ends its chain
