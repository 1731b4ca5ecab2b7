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
from typing import IO, Any, Final

from sonew.errors import InvalidConfigError
from sonew_perf.errors import MeasurementError
from sonew_perf.jax.ask import ENVIRONMENT, ONLY_CPU
from sonew_perf.process import ROOT
from sonew_perf.records.files import Entry
from sonew_perf.training.jax.request import Training, check_trains_in_jax, save
from sonew_perf.training.loop import Told, finite, mean_every
from sonew_perf.training.runs import Run
from sonew_perf.training.tasks.autoencoder import weights
from sonew_perf.training.tasks.data import Data
from sonew_perf.training.tasks.table import TASKS

CHILD: Final = ("-m", "sonew_perf.training.jax.loop")


def train_in_jax(run: Run, data: Data, device_type: str, *, told: Told = lambda _mean, _loss: None) -> Entry:
    """Train once, in JAX, in a process of its own.

    Args:
        run: what to train. data: of its task. device_type: "cpu" or "cuda".
        told: hears of each mean loss, with its number from 0; what it raises ends the run and its process.

    Returns:
        The result's part of an entry, as `training.loop.train` gives it; `fallback` is null, times are those of `jax.loop.train`.

    Raises:
        InvalidConfigError: what JAX does not train (`request.check_trains_in_jax`), or a setting that the method refuses.
        DataError: the data does not fill a batch.
        MeasurementError: the process ended without a result.
    """
    check_trains_in_jax(run, device_type)
    asked = Training(run=run, device=device_type, every=mean_every(TASKS[run.task], data, run.batch))
    with tempfile.TemporaryDirectory() as folder:
        arrays, errors = Path(folder) / "arrays.npz", Path(folder) / "errors"
        save(arrays, data.values, weights(run.seed))
        with errors.open("w") as file, _started([asked.to_json(), str(arrays)], device_type, file) as process:
            answer = _hear(process, told)
        if "result" not in answer:
            last = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            reason = answer.get("failed") or "".join(last) or "it said nothing"
            if answer.get("refused"):
                raise InvalidConfigError(reason)
            msg = f"the process that trains {run.label} ended with status {process.returncode} and without a result: {reason}"
            raise MeasurementError(msg)
    result: Entry = answer["result"]
    losses = [None if loss is None else finite(loss) for loss in (result["loss"], *result["losses"])]
    return result | {"loss": losses[0], "losses": losses[1:]}


@contextmanager
def _started(arguments: list[str], device_type: str, errors: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """The process, in a session of its own; an exception in the block ends it, else it has ended by itself."""
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    with subprocess.Popen(  # noqa: S603  # our own module
        [sys.executable, *CHILD, *arguments],
        cwd=ROOT,
        env=inherited | ENVIRONMENT | (ONLY_CPU if device_type == "cpu" else {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        except BaseException:  # Ctrl-C does not reach a session of its own
            os.killpg(process.pid, signal.SIGKILL)
            raise


def _hear(process: subprocess.Popen[str], told: Told) -> dict[str, Any]:
    """Pass on the mean losses, to the process's end; its last answer, {} where there is none but those."""
    assert process.stdout is not None  # noqa: S101  # it is a pipe
    last: dict[str, Any] = {}
    for line in process.stdout:
        try:
            answer = json.loads(line)
        except ValueError:  # cut short: the process was killed
            continue
        if "mean" in answer:
            told(answer["mean"], math.nan if answer["loss"] is None else answer["loss"])
        else:
            last = answer
    return last
