"""Gradients and settings at the ends of their ranges: zero, denormal, huge, infinite and NaN; eps = 0; corrupted state."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sonew.config import Hyper
from tests.kernels.interpreter.harness import Group
from tests.strategies import gradient
from tests.tolerances import TOLERANCES, assert_close, errors

SIZE = 40


def group_of(hyper: Hyper, grad: np.ndarray, *, past: float = 1.0) -> Group:
    """One tensor with the given next gradient; its history is scaled by `past`."""
    group = Group((grad.size,), hyper)
    group.leaves[0].momentum.mul_(past)
    group.leaves[0].stats.mul_(past * past)
    group.grads[0].copy_(torch.from_numpy(grad))
    return group


@pytest.mark.parametrize("band", [0, 2])
@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_zero_gradients_from_zero_state_leave_the_parameter(band: int, eps: float) -> None:
    """0 / 0 nowhere: the direction and the scale are 0, the parameter stays, whatever the damping."""
    group = group_of(Hyper(band=band, eps=eps, lr=1.0), np.zeros(SIZE, np.float32), past=0.0)
    before = group.leaves[0].param.clone()
    group.run()
    assert (group.direction(0) == 0).all()
    assert group.stepper.table.scales[0] == 0
    assert torch.equal(group.leaves[0].param, before)


@pytest.mark.parametrize("kind", ["denormal", "sparse", "large", "mixed", "constant"])
@pytest.mark.parametrize("band", [1, 4])
def test_rough_gradients_stay_finite_and_follow_the_reference(kind: str, band: int) -> None:
    """A step of another magnitude after an ordinary past: exact averages, and a direction as good as the reference's in float32.

    Such windows have nearly rank one, and eps_rel bounds their condition: float32 can know what the reference in float32 knows.
    """
    group = group_of(Hyper(band=band, lr=0.1, eps=1e-3, eps_rel=1e-3), gradient(5, (SIZE,), kind))
    u, _, momentum, stats = group.expected(0)
    in_float32 = group.expected(0, np.float32)[0]
    group.run()
    assert_close(group.leaves[0].momentum, momentum, "float32 averages")
    assert_close(group.leaves[0].stats, stats, "float32 averages")
    allowed = 5 * errors(in_float32, u)[0] + TOLERANCES["float32"].rms
    assert errors(group.direction(0), u)[0] <= allowed
    assert allowed < 0.5, "the comparison says nothing"
    assert torch.isfinite(group.leaves[0].param).all()


def test_direction_of_any_finite_size_grafts_without_overflow() -> None:
    """Directions around 1e36, whose squares float32 does not hold, take the target's norm exactly."""
    group = group_of(Hyper(band=1, lr=1.0, eps=1e-20), np.full(SIZE, 1e-15, np.float32), past=0.0)
    group.leaves[0].momentum.fill_(1e16)
    group.leaves[0].param.zero_()
    u, target, *_ = group.expected(0)
    group.run()
    assert np.abs(group.direction(0)).min() > 1e35
    assert_close(-group.leaves[0].param, u * (np.linalg.norm(target) / np.linalg.norm(u)), "float32")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e25])
def test_a_broken_gradient_shows_and_stays_where_it_is(value: float) -> None:
    """NaN, infinity and an overflowing square: never a finite lie at the element, and no trace beyond the band or the chain."""
    hyper = Hyper(band=2, chain=20, graft="none")
    grad = gradient(1, (SIZE,))
    grad[10], grad[19] = value, value
    broken, clean = group_of(hyper, grad), group_of(hyper, gradient(1, (SIZE,)))
    with np.errstate(all="ignore"):
        expected = broken.expected(0, np.float32)
    for group in (broken, clean):
        group.run()
    u, stats = broken.direction(0), broken.leaves[0].stats.numpy()
    np.testing.assert_array_equal(np.isfinite(u), np.isfinite(expected[0]))
    np.testing.assert_array_equal(np.isfinite(stats), np.isfinite(expected[3]))
    assert not np.isfinite(stats[0, [10, 19]]).any()
    far = np.abs(np.arange(SIZE)[:, None] - np.array([10, 19])).min(1) > 4
    far |= np.arange(SIZE) >= 20
    np.testing.assert_array_equal(u[far], clean.direction(0)[far])
    np.testing.assert_array_equal(stats[1:, 19], np.zeros(2))


@pytest.mark.parametrize("diagonal", [0.0, -1.0, float("nan")])
def test_a_dead_diagonal_gives_no_direction_and_nan_stays_nan(diagonal: float) -> None:
    """A_jj <= 0 gives D = 0; a NaN there is not turned into a number."""
    group = group_of(Hyper(band=1, eps=0.0, graft="none"), np.zeros(SIZE, np.float32))
    group.leaves[0].stats[0, 7] = diagonal
    group.leaves[0].stats[1, 5:9] = 0.0
    u, *_ = group.expected(0)
    group.run()
    got = group.direction(0)
    assert np.isnan(got[7]) if np.isnan(diagonal) else got[7] == 0
    assert_close(got, u, "float32")


def test_eps_zero_with_an_ordinary_past() -> None:
    """Without damping the recursion still follows the reference."""
    group = group_of(Hyper(band=3, eps=0.0), gradient(2, (SIZE,)))
    u, *_ = group.expected(0)
    group.run()
    assert_close(group.direction(0), u, "float32")
