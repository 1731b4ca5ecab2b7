from __future__ import annotations

import time

import pytest
import torch

from sonew_perf.training.clock import StepClock


def test_the_clock_adds_up_steps_and_the_optimizers_part_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 3.0, 10.0, 10.5, 11.0, 20.0, 24.0, 28.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    clock = StepClock(torch.device("cpu"))
    for _ in range(3):
        clock.add(clock.mark(), clock.mark(), clock.mark())
    assert clock.read() == {"wall_s": 3 + 1 + 8, "optimizer_s": 2 + 0.5 + 4, "step_s": 3, "optimizer_step_s": 2}
