"""Peak memory: what is held, each storage once, and what a call takes on top."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sonew_autotune.measure import fused_adamw
from sonew_autotune.memory import held_bytes, peak_bytes

N = 1000


@dataclass(frozen=True)
class Holder:
    one: torch.Tensor
    others: dict[str, list[torch.Tensor]]


def test_held_bytes_counts_each_storage_once() -> None:
    base = torch.zeros(N)
    holder = Holder(base, {"views": [base[10:20], base.view(10, 100)], "more": [torch.zeros(N, dtype=torch.float64)]})
    assert held_bytes(holder) == 4 * N + 8 * N
    assert held_bytes(holder, base, [holder]) == held_bytes(holder)
    param = torch.zeros(N, requires_grad=True)
    param.grad = torch.zeros(N)
    assert held_bytes(param) == 8 * N
    assert held_bytes() == 0


def test_peak_bytes_adds_the_most_that_lived_at_once() -> None:
    base = torch.zeros(N)

    def two_at_once() -> None:
        first = base + 1
        second = first + 1
        del first
        third = second[:500]
        assert third.numel() == 500

    assert peak_bytes(two_at_once, base) == 4 * N + 2 * 4 * N
    assert peak_bytes(lambda: base.add_(1), base) == 4 * N


def test_peak_bytes_of_an_optimizer() -> None:
    step = fused_adamw([(N,)])
    step()
    held = held_bytes(step.__self__)  # type: ignore[attr-defined]
    assert 4 * 4 * N <= held <= 4 * 4 * N + 64  # parameter, gradient, two moments, a step counter
    assert peak_bytes(step, step.__self__) <= held + 64  # type: ignore[attr-defined]
