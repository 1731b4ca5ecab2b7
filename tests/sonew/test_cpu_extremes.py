"""The compiled CPU backend at the ends of its ranges: zero, denormal, huge, infinite and NaN gradients; eps = 0; corrupted state."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sonew.config import Chain, Hyper
from tests.sonew.cpu_groups import Group
from tests.strategies import gradient
from tests.tolerances import TOLERANCES, assert_close, errors


def group_with(hyper: Hyper, grad: np.ndarray, *, past: float = 1.0) -> Group:
    """One tensor with the given next gradient; its history is scaled by `past`."""
    group = Group((grad.size,), hyper)
    group.leaves[0].momentum.mul_(past)
    group.leaves[0].stats.mul_(past * past)
    group.grads[0] = torch.from_numpy(grad)
    return group


@pytest.mark.parametrize("eps", [0.0, 1e-8])
@pytest.mark.parametrize("band", [0, 1, 4, 16])
def test_zero_gradients_from_zero_state_leave_the_parameter(band: int, eps: float) -> None:
    """0 / 0 nowhere: the direction and the scale are 0, whatever the damping."""
    group = group_with(Hyper(band=band, eps=eps, lr=1.0), np.zeros(300, np.float32), past=0.0)
    before = group.leaves[0].param.clone()
    group.run()
    assert (group.direction(0) == 0).all()
    assert group.stepper.table.scales[0] == 0
    assert torch.equal(group.leaves[0].param, before)


@pytest.mark.parametrize("kind", ["denormal", "sparse", "large", "mixed", "constant"])
@pytest.mark.parametrize("band", [1, 4, 16])
def test_rough_gradients_stay_finite_and_follow_the_reference(kind: str, band: int) -> None:
    """A step of another magnitude after an ordinary past: a direction as good as the reference's in float32."""
    group = group_with(Hyper(band=band, lr=0.1, eps=1e-3, eps_rel=1e-3), gradient(5, (40,), kind))
    u, _, momentum, stats = group.expected(0)
    allowed = 5 * errors(group.expected(0, np.float32)[0], u)[0] + TOLERANCES["float32"].rms
    group.run()
    assert_close(group.leaves[0].momentum, momentum, "float32 averages")
    assert_close(group.leaves[0].stats, stats, "float32 averages")
    assert errors(group.direction(0), u)[0] <= allowed < 0.5
    assert torch.isfinite(group.leaves[0].param).all()


@pytest.mark.parametrize(("band", "chain"), [(2, "tensor"), (8, 70), (16, "tensor"), (16, 70)])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_columns_fall_back_where_the_reference_does(gamma: float, band: int, chain: Chain) -> None:
    """Indefinite windows, and pivots below gamma times the diagonal: psi = 0 and D = 1 / A_jj there, elimination elsewhere."""
    hyper = Hyper(band=band, graft="none", eps=0.0, gamma=gamma, chain=chain)
    group = group_with(hyper, np.zeros(300, np.float32))
    apart = 2 * band + 1
    group.leaves[0].stats[1, ::apart] *= 40.0
    u, *_ = group.expected(0)
    plain = Hyper(band=band, graft="none", eps=0.0, gamma=2.0 if gamma == 0.0 else 0.0, chain=chain)
    other = group_with(plain, np.zeros(300, np.float32))
    other.leaves[0].stats[1, ::apart] *= 40.0
    assert errors(other.expected(0)[0], u)[0] > 0.1, "the rule makes no difference here"
    group.run()
    assert_close(group.direction(0), u, "float32")


@pytest.mark.parametrize("band", [2, 8, 16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e25])
def test_a_broken_gradient_shows_and_stays_where_it_is(value: float, band: int) -> None:
    """NaN, infinity and an overflowing square: never a finite lie at the element, no trace beyond the band or the chain."""
    hyper = Hyper(band=band, chain=20, graft="none")
    grad = gradient(1, (40,))
    grad[[10, 19]] = value
    broken, clean = group_with(hyper, grad), group_with(hyper, gradient(1, (40,)))
    expected = broken.expected(0, np.float32)
    broken.run()
    clean.run()
    u, stats = broken.direction(0).numpy(), broken.leaves[0].stats.numpy()
    np.testing.assert_array_equal(np.isfinite(u), np.isfinite(expected[0]))
    np.testing.assert_array_equal(np.isfinite(stats), np.isfinite(expected[3]))
    assert not np.isfinite(stats[0, [10, 19]]).any()
    far = (np.abs(np.arange(40)[:, None] - np.array([10, 19])).min(1) > 2 * band) | (np.arange(40) >= 20)
    np.testing.assert_array_equal(u[far], clean.direction(0).numpy()[far])


@pytest.mark.parametrize("diagonal", [0.0, -1.0, float("nan")])
def test_a_dead_diagonal_gives_no_direction_and_nan_stays_nan(diagonal: float) -> None:
    """A_jj <= 0 gives D = 0; a NaN there is not turned into a number."""
    group = group_with(Hyper(band=1, eps=0.0, graft="none"), np.zeros(40, np.float32))
    group.leaves[0].stats[0, 7] = diagonal
    group.leaves[0].stats[1, 5:9] = 0.0
    u, *_ = group.expected(0)
    group.run()
    got = group.direction(0)
    assert torch.isnan(got[7]) if np.isnan(diagonal) else got[7] == 0
    assert_close(got, u, "float32")


def test_a_direction_of_any_finite_size_grafts_without_overflow() -> None:
    """Directions around 1e36, whose squares float32 does not hold, take the target's norm."""
    group = group_with(Hyper(band=1, lr=1.0, eps=1e-20), np.full(40, 1e-15, np.float32), past=0.0)
    group.leaves[0].momentum.fill_(1e16)
    group.leaves[0].param.zero_()
    u, target, *_ = group.expected(0)
    group.run()
    assert group.direction(0).abs().min() > 1e35
    assert_close(-group.leaves[0].param, u * (np.linalg.norm(target) / np.linalg.norm(u)), "float32")


def test_statistics_past_the_chains_end_are_reset() -> None:
    """Entries that link nothing become 0 whatever was stored there, in whole-tensor chains and in short ones."""
    for chain, ends in ((5000, [4999]), (9, [*range(8, 5000, 9), 4999])):
        group = Group((5000,), Hyper(band=2, chain=chain))
        group.leaves[0].stats[:, :] += 1.0
        u, _, _, stats = group.expected(0)
        group.run()
        assert (group.leaves[0].stats[1:, ends] == 0).all()
        assert_close(group.leaves[0].stats, stats, "float32 averages")
        assert_close(group.direction(0), u, "float32")
