"""The time of steps and of the optimizer's part of them; on a GPU by events, so that measuring makes nobody wait."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch


class StepClock:
    """Marks before a step, before its optimizer and after it."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._steps: list[tuple[Any, Any, Any]] = []

    def mark(self) -> Any:  # noqa: ANN401  # seconds or an event
        """Now."""
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def add(self, start: Any, middle: Any, end: Any) -> None:  # noqa: ANN401  # as `mark`
        """A step from `start` to `end` whose optimizer began at `middle`."""
        self._steps.append((start, middle, end))

    def _between(self, start: Any, end: Any) -> float:  # noqa: ANN401  # as `mark`
        return float(start.elapsed_time(end)) / 1e3 if self._on_gpu else float(end - start)

    def read(self) -> dict[str, float]:
        """Seconds of all steps, and of one: `wall_s`, `optimizer_s`, and the medians `step_s`, `optimizer_step_s`. Waits for the device."""
        if self._on_gpu:
            torch.cuda.synchronize()
        steps = [self._between(start, end) for start, _, end in self._steps]
        inside = [self._between(middle, end) for _, middle, end in self._steps]
        return {
            "wall_s": round(sum(steps), 4),
            "optimizer_s": round(sum(inside), 4),
            "step_s": round(statistics.median(steps), 6),
            "optimizer_step_s": round(statistics.median(inside), 6),
        }
