"""The share of columns that fall back, against the rule written out for the tridiagonal window."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sonew.torch import SONew
from sonew_perf.training.fallback import fallback_share


def optimizer_before_a_step(*, gamma: float, state_dtype: str = "float32", steps: int = 4) -> tuple[SONew, torch.nn.Parameter]:
    """An optimizer with a short past and a gradient for the coming step; every third element never sees one."""
    generator = torch.Generator().manual_seed(3)
    param = torch.nn.Parameter(torch.zeros(40, 5))
    optimizer = SONew([param], lr=0.1, gamma=gamma, state_dtype=state_dtype, backend="reference")
    for step in range(steps + 1):
        grad = torch.randn(40, 5, generator=generator)
        grad.view(-1)[::3] = 0
        param.grad = grad
        if step < steps:
            optimizer.step()
    return optimizer, param


@pytest.mark.parametrize("gamma", [0.0, 0.9])
def test_share_follows_the_rule(gamma: float) -> None:
    """In float64, entry by entry: the window (a, c; c, d) falls back when d or a - c^2/d is at or below gamma times its diagonal."""
    optimizer, param = optimizer_before_a_step(gamma=gamma)
    state = optimizer.state[param]
    assert param.grad is not None
    grad = param.grad.reshape(-1).double().numpy()
    stats = state["stats"].reshape(2, -1).double().numpy()
    scale = 1 - 0.99 ** (int(state["count"]) + 1)
    diagonal = (0.99 * stats[0] + 0.01 * grad**2) / scale + 1e-8
    coupling = (0.99 * stats[1, :-1] + 0.01 * grad[:-1] * grad[1:]) / scale
    near, far = diagonal[:-1], diagonal[1:]
    fallen = (near - coupling**2 / far <= gamma * near) | (far <= gamma * far)
    tied = coupling != 0
    want = fallen[tied].mean()
    assert fallback_share(optimizer) == pytest.approx(want)
    assert (want > 0.1) == (gamma > 0)
    assert 0.3 < np.mean(tied) < 0.4


def test_narrow_state_is_read_as_it_is_stored() -> None:
    """Rounded statistics are a share of their own: there is one, and it is not larger than all."""
    share = fallback_share(optimizer_before_a_step(gamma=0.9, state_dtype="bfloat16")[0])
    assert share is not None
    assert 0 < share < 1


def test_nothing_coupled_is_no_share() -> None:
    param = torch.nn.Parameter(torch.zeros(7))
    param.grad = torch.ones(7)
    optimizer = SONew([param], band=0, backend="reference")
    assert fallback_share(optimizer) is None
    optimizer.step()
    assert fallback_share(optimizer) is None
