"""Tuning processes on a recorded device, forked, so that many of them can be killed in a short time."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from sonew_autotune.api import SilentReport
from sonew_autotune.search.results import Result
from sonew_autotune.search.storage import open_storage
from sonew_autotune.search.targets import recorded_target
from sonew_autotune.search.tuner import Machine, Run
from sonew_autotune.settings import Settings
from sonew_autotune.space import build_space
from sonew_autotune.trials.recorded import RecordedDevice
from tests.autotune.landscapes import made_up

POINTS = build_space("cpu", 1, threads=2, cores=2).points()
SETTINGS = Settings(trials=len(POINTS), rounds=3, budget_s=60)


def cost(config: Mapping[str, int]) -> float:
    """Milliseconds: best in blocks of 2048 and segments of 65536."""
    return 1.0 + (config["block"] != 2048) + 0.5 * (config["segment"] != 65536) + 0.2 * config["threads"]


LANDSCAPE = made_up(cost, POINTS)
BEST = {"segment": 65536, "block": 2048, "threads": 0}


def tune(folder: Path, *, storage: str | None, store: Path, seed: int, delay_s: float = 0.0, settings: Settings = SETTINGS) -> Result:
    """Tune the one problem, alone or in a shared storage."""
    device = RecordedDevice(landscapes=[LANDSCAPE], seed=seed, delay_s=delay_s)
    machine = Machine(answer=device.answer, target=lambda _case: recorded_target(LANDSCAPE))
    with ExitStack() as stack:
        shared = stack.enter_context(open_storage(storage, heartbeat_s=1)) if storage is not None else None
        run = Run(
            settings,
            store_path=store,
            studies=folder / "studies",
            machine=machine,
            report=SilentReport(),
            started=time.monotonic(),
            shared=shared,
        )
        return run.tune([LANDSCAPE.case])[0]


def forked(work: Callable[[], object]) -> int:
    """The process id of a child that does the work and ends with status 0, or 1 with a traceback."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001  # the child must not return into the test
        traceback.print_exc()
    finally:
        os._exit(status)


def status_of(pid: int) -> int:
    """How a child ended: its exit status, or minus the signal."""
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def kill(pid: int) -> int:
    """Kill a child and return how it ended."""
    os.kill(pid, signal.SIGKILL)
    return status_of(pid)
