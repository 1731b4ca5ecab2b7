"""Training one run in torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import torch
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # torch documents it there

from sonew.torch import SONew
from sonew_perf.machine import describe_plans
from sonew_perf.records.files import Entry
from sonew_perf.training import methods
from sonew_perf.training.clock import StepClock
from sonew_perf.training.fallback import LayerFallback
from sonew_perf.training.runs import Run
from sonew_perf.training.schedule import RULES
from sonew_perf.training.tasks.data import Data, batches, steps_per_epoch
from sonew_perf.training.tasks.table import TASKS, Task

Told = Callable[[int, float], None]


def finite(value: float) -> float | None:
    """Six significant digits, None for what JSON cannot say."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def mean_every(task: Task, data: Data, batch: int) -> int:
    """Steps that a recorded mean loss is over."""
    return max(1, steps_per_epoch(data.examples, batch) // task.means)


def _to_device(values: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(values.copy()).to(device)


def _set_rate(optimizer: methods.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def _could_step(optimizer: methods.Optimizer) -> bool:
    """Step; False where SOAP or Shampoo finds no eigenvectors, as of matrices that are no longer finite."""
    try:
        optimizer.step()
    except LinAlgError:
        return False
    return True


def train(run: Run, data: Data, device: torch.device, *, counters: bool = False, told: Told = lambda _mean, _loss: None) -> Entry:
    """Train once, in torch.

    A run whose loss is no longer finite, or whose optimizer cannot step, ends there: its losses are recorded as null from then on.

    Args:
        run: what to train. data: of its task. device: where.
        counters: whether SONew counts the columns that fall back, by layer.
        told: hears of each mean loss, with its number from 0; what it raises ends the run.

    Returns:
        The result's part of an entry: `loss` (`Task.evaluate` after the last step, null when training diverged), `losses` (mean of every
        `losses_every` steps and of what is left at the end, each taken before its update), times (`StepClock.read`), `state_bytes`,
        `fallback` (`LayerFallback.read`, or null), `plans`, `date`.

    Raises:
        InvalidConfigError: as `methods.build`. DataError: the data does not fill a batch.
    """
    task = TASKS[run.task]
    model = task.build(run.seed, data).to(device, methods.parameter_dtype(run.precision))
    optimizer = methods.build(run.method, model, run.settings, run.precision, counters=counters)
    fallback = LayerFallback(model, optimizer) if counters and isinstance(optimizer, SONew) else None
    values = _to_device(data.values, device)
    held_out = None if data.held_out is None else _to_device(data.held_out, device)
    every, per_epoch, rate = mean_every(task, data, run.batch), steps_per_epoch(data.examples, run.batch), RULES[run.lr_rule]
    clock = StepClock(device)
    means: list[float] = []
    window: list[torch.Tensor] = []
    for step, chosen in enumerate(batches(data.examples, run.batch, run.steps, run.seed)):
        start = clock.mark()
        _set_rate(optimizer, run.settings.lr * rate(step, run.schedule_steps, per_epoch))
        model.zero_grad()
        value = task.loss(model, task.pick(values, torch.from_numpy(chosen).to(device)))
        value.backward()
        middle = clock.mark()
        went = _could_step(optimizer)
        clock.add(start, middle, clock.mark())
        window.append(value.detach() if went else torch.full_like(value, math.nan))
        if len(window) == every or step == run.steps - 1 or not went:
            means.append(float(torch.stack(window).mean()))
            window.clear()
            if fallback is not None:
                fallback.note()
            told(len(means) - 1, means[-1])
            if not math.isfinite(means[-1]):
                break
    expected = -(-run.steps // every)
    result = task.evaluate(model, values, held_out) if len(means) == expected and math.isfinite(means[-1]) else math.nan
    return {
        "loss": finite(result),
        "losses": [finite(mean) for mean in means] + [None] * (expected - len(means)),
        "losses_every": every,
        **clock.read(),
        "state_bytes": methods.state_bytes(optimizer),
        "fallback": None if fallback is None else fallback.read(),
        "plans": describe_plans(optimizer),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
