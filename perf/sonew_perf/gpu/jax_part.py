"""The JAX stage: its tests on the device and its times, in processes that have JAX and no torch of ours."""

from __future__ import annotations

import time

from sonew_autotune.trials.outcome import Failure
from sonew_perf.gpu.ladder import run_ladder
from sonew_perf.gpu.outcome import Outcome, of_timing
from sonew_perf.gpu.plan import JaxLadder
from sonew_perf.jax.ask import ENVIRONMENT, ask, jax_gpu_problem
from sonew_perf.jax.request import JaxTiming


def _unfinished(device: str) -> Outcome | None:
    """Why the stage cannot run yet: without JAX's own CUDA packages it waits for them."""
    reason = jax_gpu_problem() if device == "cuda" else None
    return None if reason is None else Outcome(status="unfinished", reason=reason)


def run_jax_ladder(task: JaxLadder, seconds: float) -> Outcome:
    """The tests of the JAX surface on the device."""
    deadline = time.monotonic() + seconds
    if (unfinished := _unfinished(task.device)) is not None:
        return unfinished
    return run_ladder(task.ladder, deadline - time.monotonic(), ENVIRONMENT)


def run_jax_timing(task: JaxTiming, seconds: float) -> Outcome:
    """Time a case in a process of its own."""
    deadline = time.monotonic() + seconds
    if (unfinished := _unfinished(task.device)) is not None:
        return unfinished
    answer = ask(task, max(0.0, deadline - time.monotonic()))
    if isinstance(answer, Failure):
        return Outcome(status="unfinished" if answer.kind == "timeout" else "failed", reason=answer.message)
    return of_timing(answer, len(task.case_names))
