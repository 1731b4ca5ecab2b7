"""How fast the tuner is: a small search, for real, into a store that is thrown away.

Run as `python -m sonew_perf.suite.tuning DEVICE RESULT`: the seconds of every trial are written to the file RESULT as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sonew_autotune.settings import Problems, Settings
from sonew_autotune.trials.outcome import Failure
from sonew_perf.entries import digits
from sonew_perf.process import run_process
from sonew_perf.records.files import Entry

if TYPE_CHECKING:
    from sonew_autotune.problems import Case
    from sonew_autotune.search.results import Record

SIZE: Final = 2**16
BAND: Final = 1
TRIALS: Final = 7
ROUNDS: Final = 3
BUDGET_S: Final = 10.0  # the last comparison, which is not what is timed here, takes what the trials leave
CASE: Final = "tuning trial"


def search(device: str) -> dict[str, Any]:
    """Tune one tensor and say how long that took: `seconds` of every trial, `wall_s` of everything, `failures`."""
    from sonew_autotune.api import SilentReport, tune  # noqa: PLC0415  # it loads Optuna, which only this process needs

    seconds: list[float] = []
    failures: list[str] = []

    class TrialTimes(SilentReport):
        """Keeps the seconds of every trial, and why one failed."""

        def trial(self, case: Case, record: Record) -> None:  # noqa: ARG002  # a report's signature
            """One more."""
            seconds.append(record.seconds)
            if record.failure is not None:
                failures.append(f"{record.failure.kind}: {record.failure.message}")

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tune(
            Problems(bands=(BAND,), sizes=(SIZE,), device=device),
            settings=Settings(trials=TRIALS, rounds=ROUNDS, budget_s=BUDGET_S, sampler="random"),
            store=Path(folder) / "tuned.json",
            state_dir=Path(folder) / "state",
            report=TrialTimes(),
        )
    return {"seconds": seconds, "wall_s": time.monotonic() - began, "failures": failures}


def tuner_entry(found: dict[str, Any]) -> Entry:
    """What a record says of a search."""
    low, median, high = np.percentile(found["seconds"], (20, 50, 80))
    return {
        "case": CASE,
        "trials": len(found["seconds"]),
        "rounds": ROUNDS,
        "samples": [digits(value) for value in found["seconds"]],
        "unit": "s",
        "repetitions": 1,
        "median": digits(median),
        "p20": digits(low),
        "p80": digits(high),
        "wall_s": digits(found["wall_s"]),
        "trial_failures": len(found["failures"]),
        "against": {},
    }


def measure_tuner(device: str, seconds: float) -> list[Entry] | Failure:
    """The tuner's entry, from a process of its own, or why there is none."""
    shared = {"load_before": round(os.getloadavg()[0], 2), "date": datetime.now(UTC).isoformat(timespec="seconds")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        done = run_process([sys.executable, "-m", "sonew_perf.suite.tuning", device, str(path)], seconds)
        if done.status is None:
            return Failure("timeout", f"no result after {seconds:.0f} s, the process was stopped")
        if done.status != 0:
            return Failure("crash", done.tail[-1] if done.tail else f"the process ended with status {done.status}")
        found = json.loads(path.read_text(encoding="utf-8"))
    if not found["seconds"]:
        return Failure("error", next(iter(found["failures"]), "the search ended without a trial"))
    return [shared | tuner_entry(found)]


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(search(sys.argv[1])), encoding="utf-8")
