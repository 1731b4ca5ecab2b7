"""The correctness ladder on the device: the tests of `tests/kernels/gpu`, and the sanitizer's search for races."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from sonew_perf.gpu.outcome import Outcome
from sonew_perf.gpu.plan import Ladder, Racecheck
from sonew_perf.process import ROOT, Finished, run_process

PARALLEL: Final = 4  # processes: most of their time goes into compiling, on the host
NONE_MARKED: Final = 5  # pytest's exit status where none of a file's tests has the marker
RACE_FOUND: Final = 9  # exit status that the sanitizer is told to take
NOT_PRESENT: Final = "not present"
STEPS: Final = """
import torch
from sonew.torch import SONew
for band in {bands}:
    params = [torch.randn(size, device="cuda") for size in (1, 1000, 5000)]
    for param in params:
        param.grad = torch.randn_like(param)
    optimizer = SONew(params, band=band, backend="triton", tuning="off")
    for _ in range(2):
        optimizer.step()
    torch.cuda.synchronize()
"""


def _counts(output: str) -> dict[str, int]:
    """passed, failed, skipped, error as pytest's last line says."""
    lines = output.strip().splitlines()
    found = re.findall(r"(\d+) (passed|failed|skipped|error)", lines[-1] if lines else "")
    return {name: int(number) for number, name in found}


def _test_files(tests: str) -> list[Path]:
    place = ROOT / tests
    return [place] if place.is_file() else sorted(place.glob("test_*.py"))


def run_ladder(task: Ladder, seconds: float, environment: Mapping[str, str] | None = None) -> Outcome:
    """Run the tests, each file in a process of its own, a few at a time.

    Args:
        task: which tests. seconds: for everything.
        environment: what their processes have beside this one's own.

    Returns:
        failed where a test failed or none ran; `result` has per file the counts, the seconds and, unless all passed, the output's end.
    """
    files = _test_files(task.tests)
    if not files:
        return Outcome(status="failed", reason=f"no tests at {ROOT / task.tests}: run from a checkout of the repository")
    deadline = time.monotonic() + seconds

    def run(file: Path) -> tuple[dict[str, object], Finished]:
        started = time.monotonic()
        command = [sys.executable, "-m", "pytest", str(file), "-m", task.marker, "--quiet", "-p", "no:cacheprovider"]
        done = run_process(command, deadline - started, environment)
        counts = _counts(done.output)
        clean = done.status == 0 and not counts.get("skipped")
        entry = {"file": file.name, "exit": done.status, **counts, "seconds": round(time.monotonic() - started, 1)}
        return entry | ({} if clean else {"output": done.tail}), done

    with ThreadPoolExecutor(min(PARALLEL, os.cpu_count() or 1)) as pool:
        runs = list(pool.map(run, files))
    result = {"files": [entry for entry, _ in runs]}
    if late := [entry["file"] for entry, done in runs if done.status is None]:
        return Outcome(status="unfinished", reason=f"the time ended inside {', '.join(map(str, late))}", result=result)
    failed = [
        f"{entry['file']} (exit {done.status})" for entry, done in runs if done.status not in (0, 5)
    ]  # 5: none of its tests is marked
    total = {name: sum(_counts(done.output).get(name, 0) for _, done in runs) for name in ("passed", "failed", "skipped", "error")}
    said = ", ".join(f"{number} {name}" for name, number in total.items() if number) or "no test ran"
    if failed or not total["passed"] or total["skipped"]:
        return Outcome(status="failed", reason="; ".join([said, *failed]), result=result | total)
    return Outcome(status="done", reason=said, result=result | total)


def run_racecheck(task: Racecheck, seconds: float) -> Outcome:
    """Two small steps per band under the sanitizer; done with "not present" where it is not installed."""
    program = shutil.which(task.program)
    if program is None:
        return Outcome(status="done", reason=f"{task.program}: {NOT_PRESENT}", result={"sanitizer": NOT_PRESENT})
    command = [program, "--tool", "racecheck", "--error-exitcode", str(RACE_FOUND), sys.executable, "-c", STEPS.format(bands=task.bands)]
    done = run_process(command, seconds)
    result = {"sanitizer": program, "exit": done.status, "output": done.tail}
    if done.status is None:
        return Outcome(status="unfinished", reason="the time ended inside the sanitizer", result=result)
    if done.status != 0:
        found = "the sanitizer found races" if done.status == RACE_FOUND else f"exit {done.status}"
        return Outcome(status="failed", reason=found, result=result)
    return Outcome(status="done", reason="no race found", result=result)
