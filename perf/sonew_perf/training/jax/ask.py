"""Asks a process that trains in JAX: torch is loaded here, and not there."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from sonew_perf.errors import MeasurementError
from sonew_perf.jax.ask import ENVIRONMENT, ONLY_CPU
from sonew_perf.process import ROOT
from sonew_perf.records.files import Entry
from sonew_perf.training.jax.request import Training, check_trains_in_jax
from sonew_perf.training.loop import Told, finite, mean_every
from sonew_perf.training.runs import Run
from sonew_perf.training.tasks.data import Data
from sonew_perf.training.tasks.table import TASKS


def train_in_jax(run: Run, data: Data, device_type: str, *, told: Told = lambda _mean, _loss: None) -> Entry:
    """Train once, in JAX, in a process of its own.

    Args:
        run: what to train. data: of its task. device_type: "cpu" or "cuda".
        told: hears of each mean loss, with its number from 0; what it raises ends the run and its process.

    Returns:
        The result's part of an entry, as `training.loop.train` gives it; `fallback` is null.

    Raises:
        InvalidConfigError: what JAX does not train (`request.check_trains_in_jax`).
        MeasurementError: the process ended without a result.
    """
    check_trains_in_jax(run.method, run.band, run.precision, device_type)
    asked = Training(run=run, device=device_type, every=mean_every(TASKS[run.task], data, run.batch))
    with tempfile.TemporaryDirectory() as folder:
        values, said = Path(folder) / "values.npy", Path(folder) / "stderr"
        np.save(values, data.values, allow_pickle=False)
        command = [sys.executable, "-m", "sonew_perf.training.jax.loop", asked.to_json(), str(values)]
        with said.open("w") as errors, _started(command, device_type, errors) as process:
            result = _hear(process, told)
            status = process.wait()
        if result is None or status != 0:
            lines = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            msg = f"training {run.label} in JAX ended with status {status} and no result: {lines[-1] if lines else 'it said nothing'}"
            raise MeasurementError(msg)
    return result | {"loss": _digits(result["loss"]), "losses": [_digits(loss) for loss in result["losses"]]}


def _digits(loss: float | None) -> float | None:
    return None if loss is None else finite(loss)


@contextmanager
def _started(command: list[str], device_type: str, errors: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own; it does not outlive the block."""
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment = inherited | ENVIRONMENT | (ONLY_CPU if device_type == "cpu" else {})
    with subprocess.Popen(  # noqa: S603  # our own module
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _hear(process: subprocess.Popen[str], told: Told) -> dict[str, Any] | None:
    """Pass on the mean losses; the result, None where the process ended before it."""
    assert process.stdout is not None  # noqa: S101  # it is a pipe
    for line in process.stdout:
        answer = json.loads(line)
        if "result" in answer:
            result: dict[str, Any] = answer["result"]
            return result
        told(answer["mean"], math.nan if answer["loss"] is None else answer["loss"])
    return None
