"""Starts the process of a group and brings back what became of it."""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sonew_autotune.device import device_name
from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.turns import lock_of, turns_on
from sonew_autotune.trials.worker import Worker
from sonew_perf.entries import installed_version
from sonew_perf.jax import report as jax_report
from sonew_perf.jax.ask import ENVIRONMENT, NO_JAX, ONLY_CPU
from sonew_perf.jax.request import JaxTiming
from sonew_perf.process import run_process
from sonew_perf.records.files import Entry
from sonew_perf.suite.groups import IMPORT, TUNER, Group
from sonew_perf.suite.imports import measure_imports
from sonew_perf.suite.torch_process import Answer, Request, Timed, make_answer
from sonew_perf.suite.tuning import measure_tuner


def run_torch(group: Group, rounds: int, seconds: float) -> Answer:
    """Steps, phases and the host's part in torch."""
    worker = Worker(make_answer)
    try:
        answer: Answer = worker.answer(Request(group, rounds), seconds)
        return answer
    finally:
        worker.close()


def run_jax(group: Group, rounds: int, seconds: float) -> Answer:
    """Steps in JAX, in a process that loads no torch."""
    if group.workload is None or installed_version("jax") == "not installed":
        return Failure("error", NO_JAX)
    timing = JaxTiming(workload=group.workload, methods=group.methods, device=group.device, rounds=rounds)
    environment = ENVIRONMENT | (ONLY_CPU if group.device == "cpu" else {})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = [sys.executable, "-m", "sonew_perf.suite.jax_process", timing.to_json(), str(path)]
        done = run_process(command, seconds, environment)
        if done.status is None:
            return Failure("timeout", f"no result after {seconds:.0f} s, the process was stopped")
        if done.status != 0:
            return Failure("crash", done.tail[-1] if done.tail else f"the process ended with status {done.status}")
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Timed(jax_report.entries_of(result), result["failures"])


def _listed(answer: list[Entry] | Failure) -> Answer:
    return answer if isinstance(answer, Failure) else Timed(answer, {})


def run_group(group: Group, rounds: int, seconds: float, end: float = math.inf) -> Answer:
    """Run a group by its kind, in its turn: a tuner, or another run, on the same device is waited for, for as long again.

    Args:
        group: the group. rounds: samples per case. seconds: of its own, waiting left out.
        end: `time.monotonic()` after which it is stopped, or waits no more.

    Raises:
        DeviceBusyError: the device was not free until then.
    """
    if group.what == TUNER:  # which takes a turn for each of its trials
        return _listed(measure_tuner(group.device, min(seconds, end - time.monotonic())))
    with turns_on(lock_of(device_name(group.device)))(min(time.monotonic() + seconds, end)):
        limit = min(seconds, end - time.monotonic())
        if group.what == IMPORT:
            return _listed(measure_imports(group.framework, rounds, limit))
        return run_jax(group, rounds, limit) if group.framework == "jax" else run_torch(group, rounds, limit)
