"""The shares of columns that fall back, against the rule written out for the tridiagonal window."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sonew.torch import SONew
from sonew_perf.training.fallback import LayerFallback

STEPS = 4
EPS = 1e-2  # with less the first step, whose windows have rank one, is decided by float32's rounding


class Layers(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Parameter(torch.zeros(40, 5))
        self.second = torch.nn.Parameter(torch.zeros(9))


def gradients() -> list[dict[str, torch.Tensor]]:
    """By step: of each layer; every third element of the first never sees one."""
    generator = torch.Generator().manual_seed(3)
    grads = [{"first": torch.randn(40, 5, generator=generator), "second": torch.randn(9, generator=generator)} for _ in range(STEPS)]
    for grad in grads:
        grad["first"].view(-1)[::3] = 0
    return grads


def columns_that_fall(name: str, gamma: float) -> list[int]:
    """By step, in float64: column i of the window (a, c; c, d) falls back when d or a - c^2/d is at or below gamma times its diagonal."""
    size = gradients()[0][name].numel()
    mean, product, counts = np.zeros(size), np.zeros(size - 1), []
    for step, grads in enumerate(gradients(), 1):
        grad = grads[name].reshape(-1).double().numpy()
        mean = 0.99 * mean + 0.01 * grad**2
        product = 0.99 * product + 0.01 * grad[:-1] * grad[1:]
        diagonal, coupling = mean / (1 - 0.99**step) + EPS, product / (1 - 0.99**step)
        near, far = diagonal[:-1], diagonal[1:]
        fallen = (near - coupling**2 / far <= gamma * near) | (far <= gamma * far)
        counts.append(int(fallen.sum()) + (gamma >= 1))  # the last column's window is itself
    return counts


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1e3])
def test_each_look_tells_the_share_of_each_layer_since_the_last(gamma: float) -> None:
    """After the first step, and after the other three; with a huge gamma every column falls back."""
    model = Layers()
    groups = [{"params": [model.second]}, {"params": [model.first]}]  # in another order than the model's
    optimizer = SONew(groups, lr=0.1, eps=EPS, gamma=gamma, counters=True, backend="reference")
    watched = LayerFallback(model, optimizer)
    for step, grads in enumerate(gradients()):
        for name, param in model.named_parameters():
            param.grad = grads[name]
        optimizer.step()
        if step in (0, STEPS - 1):
            watched.note()
    expected = {}
    for name, columns in (("first", 200), ("second", 9)):
        counts = columns_that_fall(name, gamma)
        expected[name] = pytest.approx([counts[0] / columns, sum(counts[1:]) / columns / 3], abs=1e-7)
    assert watched.read() == {"layers": expected}
    if gamma == 1e3:
        assert watched.read() == {"layers": {"first": [1, 1], "second": [1, 1]}}


def test_the_rule_written_out_tells_the_three_gammas_apart() -> None:
    shares = [np.mean(columns_that_fall("first", gamma)) / 200 for gamma in (0.0, 0.9, 1e3)]
    assert shares[0] < 0.05
    assert 0.1 < shares[1] < 0.5
    assert shares[2] == 1


def test_a_look_without_a_step_in_between_is_no_share() -> None:
    model = Layers()
    optimizer = SONew(model.parameters(), gamma=1e3, counters=True, backend="reference")
    watched = LayerFallback(model, optimizer)
    for name, param in model.named_parameters():
        param.grad = gradients()[0][name]
    optimizer.step()
    watched.note()
    watched.note()
    assert watched.read() == {"layers": {"first": [1, 0], "second": [1, 0]}}
