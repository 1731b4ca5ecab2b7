"""The prologue: counts, corrections and border records."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sonew.config import Hyper
from sonew_kernels.spec import Column
from tests.kernels.interpreter.harness import Group


@pytest.mark.parametrize("band", [0, 1, 3, 8])
def test_borders_hold_old_values_and_nothing_else_is_written(band: int) -> None:
    """Every border inside a tensor has its 2 * band old momenta and stats; outer records stay as they were."""
    group = Group((2 * (128 - band) + 5, 0, 128 - band, 129), Hyper(band=band), steps=3)
    table = group.stepper.table
    want = np.full(table.edges.shape, np.nan, np.float32)
    for row, leaf in enumerate(group.leaves):
        first, length = (int(table.rows[row, column]) for column in (Column.FIRST_TILE, Column.LENGTH))
        for k, border in enumerate(range(128 - band, length, 128 - band), start=1):
            near = slice(border - band, min(border + band, length))
            fields = np.concatenate((leaf.momentum[None, near].numpy(), leaf.stats[:, near].numpy()))
            want[first + row + k, :, : fields.shape[1]] = fields
    group.stepper.prologue()

    np.testing.assert_array_equal(table.edges.numpy(), want)
    assert group.intact()


def test_counts_and_corrections() -> None:
    """Each tensor with a gradient counts one step, the empty one too; corrections are 1 - beta^count."""
    group = Group((300, 0, 7), Hyper(band=2), steps=4)
    group.leaves[2].count.fill_(10_000_000)
    group.stepper.prologue()

    assert [leaf.count.item() for leaf in group.leaves] == [4, 4, 10_000_001]
    counts = np.array([4.0, 4.0, 10_000_001.0])
    want = np.stack((-np.expm1(counts * np.log(0.9)), -np.expm1(counts * np.log(0.99))), axis=1)
    np.testing.assert_allclose(group.stepper.table.corrections.numpy(), want, rtol=3e-7)


@pytest.mark.parametrize(
    ("beta", "count"), [(0.0, 1), (0.5, 1), (0.999, 1), (1 - 1e-12, 1), (1 - 1e-6, 1), (1 - 1e-6, 130_000), (0.9, 1), (0.9, 2)]
)
def test_correction_has_no_cancellation(beta: float, count: int) -> None:
    """1 - beta^count keeps float32 accuracy for beta near 1, on both sides of the switch to the series, and for beta 0."""
    group = Group((3,), Hyper(band=1, beta1=beta), steps=2)
    group.leaves[0].count.fill_(count - 1)
    group.stepper.prologue()

    want = 1.0 if beta == 0 else -np.expm1(count * np.log(beta))
    np.testing.assert_allclose(group.stepper.table.corrections[0, 0].item(), want, rtol=3e-7)


def test_tensor_without_gradient_is_left_alone() -> None:
    """No count, no correction and no record for an inactive tensor."""
    group = Group((300, 300), Hyper(band=2), steps=2)
    group.stepper.bind([None, group.grads[1]])
    group.stepper.prologue()

    table = group.stepper.table
    assert [leaf.count.item() for leaf in group.leaves] == [1, 2]
    assert torch.isnan(table.corrections[0]).all()
    assert torch.isnan(table.edges[:4]).all()
    assert not torch.isnan(table.edges[5, :4]).any()
