"""`kill -9` of a real run and of its worker process, at random moments: what was finished stays, and the rest is done later."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sonew import paths, tuned
from sonew_autotune.search.study import RECORD

COMMAND = ("run", "--device", "cpu", "--size", "3000", "--band", "1", "--sampler", "every-point", "--effort", "quick", "--budget", "300")
KILLS = 10  # of the run, and as many of its worker


def _start() -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "sonew_autotune.cli", *COMMAND]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _records(state: Path) -> list[dict[str, object]]:
    """Every record of the one journal, as often as it is there."""
    found = []
    for journal in (state / "studies").glob("*.journal"):
        for line in journal.read_text(encoding="utf-8").rpartition("\n")[0].splitlines():
            attributes = json.loads(line).get("user_attr", {})
            if RECORD in attributes:
                found.append(attributes[RECORD])
    return found


def _configs(state: Path) -> list[str]:
    return [json.dumps(record["config"], sort_keys=True) for record in _records(state)]


def _worker_of(pid: int) -> int | None:
    """The process that times for a run: of its children the one that multiprocessing spawned to work."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split():
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    return None


@pytest.mark.full
def test_runs_and_workers_killed_at_random_lose_nothing() -> None:
    spread, state = random.Random(7), paths.state_dir()
    finished: set[str] = set()
    for number in range(2 * KILLS):
        run = _start()
        wanted, limit = len(finished) + spread.randrange(3), time.monotonic() + 60
        while len(_records(state)) < wanted and run.poll() is None and time.monotonic() < limit:
            time.sleep(0.02)
        time.sleep(spread.uniform(0.0, 1.0))
        if number % 2 and run.poll() is None:
            worker = _worker_of(run.pid)
            if worker is not None:
                os.kill(worker, signal.SIGKILL)
                time.sleep(spread.uniform(0.0, 2.0))
        run.kill()
        run.wait()
        known = set(_configs(state))
        assert finished <= known
        finished = known
    assert len(finished) > 0
    last = _start()
    assert last.wait(300) == 0
    configs = _configs(state)
    assert len(configs) == len(set(configs))
    assert {str(record["failure"]) for record in _records(state)} == {"None"}  # no candidate is blamed for a kill
    (entry,) = tuned.read_store("user store", paths.store_path()).entries
    assert (entry.evidence["trials"], entry.evidence["stopped"]) == (len(configs), "every point")
