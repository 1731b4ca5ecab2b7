"""The norms kernels: a fixed-order reduction of partial sums to the square root of |a| / |u|."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from sonew.config import Hyper
from sonew_kernels.norms import roots_direct
from sonew_kernels.spec import Column
from tests.kernels.interpreter.harness import Group
from tests.kernels.interpreter.joined import joined_rows
from tests.tolerances import assert_close


def test_scale_of_every_tensor() -> None:
    """Each tensor's tiles are summed and no other's; a zero direction gives 0, one that is not finite NaN, huge sums do not overflow."""
    group = Group((300, 5, 0, 700, 9, 9, 9), Hyper(band=2), steps=2)
    table = group.stepper.table
    rng = np.random.default_rng(0)
    table.partials.copy_(torch.from_numpy(rng.uniform(0.1, 10, table.partials.shape)))
    first = [*table.rows[:, Column.FIRST_TILE].tolist(), len(table.tiles)]
    table.partials[first[2]] = torch.tensor([0.0, 1.0])
    table.partials[first[4]] = torch.tensor([float("nan"), 1.0])
    table.partials[first[5]] = torch.tensor([1e77, 1e50], dtype=torch.float64)
    table.partials[first[6]] = torch.tensor([float("inf"), 1.0])
    group.stepper.norms()

    sums = np.stack([table.partials[a:b].sum(0).numpy() for a, b in pairwise(first)])
    want = (sums[:, 1] / np.where(sums[:, 0] == 0, np.inf, sums[:, 0])) ** 0.25
    want[6] = np.nan
    assert_close(table.scales, want, "norms")
    assert table.scales[2] == 0


def test_graft_none_has_scale_one() -> None:
    """Without grafting the direction is taken as it is."""
    group = Group((300, 5), Hyper(band=1, graft="none"), steps=2)
    group.stepper.norms()
    assert group.stepper.table.scales.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("tiles", [1, 15, 16, 17, 100])
def test_more_tiles_than_one_block(tiles: int) -> None:
    """A tensor of more tiles than a block is reduced in several rounds; partials of its neighbours do not count."""
    partials = torch.full((tiles + 4, 2), float("nan"), dtype=torch.float64)
    partials[2 : tiles + 2] = torch.from_numpy(np.random.default_rng(tiles).uniform(0.1, 10, (tiles, 2)))
    rows, _ = joined_rows([101, (tiles - 1) * 100 + 1, 200], 100)
    roots = torch.zeros((3, 2))
    roots_direct[(3,)](rows, partials, roots, TILE=100, BLOCK=16)

    sums = partials[2 : tiles + 2].sum(0).numpy()
    assert_close(roots[1], sums**0.25, "norms")
    assert torch.isnan(roots[[0, 2]]).all()
