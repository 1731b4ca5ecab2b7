"""`sonew_autotune.tune`: a tuning run as a function call. The command line is a shell around it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

from sonew import paths
from sonew.errors import InvalidConfigError
from sonew_autotune.device import device_name, find_device, select_device
from sonew_autotune.problems import Case, cases_of
from sonew_autotune.search.results import Record, Report, Result
from sonew_autotune.search.samplers import check_sampler
from sonew_autotune.search.storage import open_storage
from sonew_autotune.search.study import Prepare
from sonew_autotune.search.targets import Target, landscape_of, recorded_target
from sonew_autotune.search.tuner import Machine, Run
from sonew_autotune.settings import EFFORTS, HEARTBEAT_S, Problems, Settings
from sonew_autotune.store.files import prepare_folder
from sonew_autotune.store.winners import prepare
from sonew_autotune.trials.ahead import CompileAhead, CompileRequest, launch_of
from sonew_autotune.trials.landscape import Landscape, read_landscapes, write_landscapes
from sonew_autotune.trials.recorded import RecordedDevice
from sonew_autotune.trials.trial import make_evaluator
from sonew_autotune.trials.turns import lock_of, turns_on
from sonew_autotune.trials.worker import Worker

DEFAULT_PROBLEMS: Final = Problems()


class SilentReport:
    """A report that says nothing."""

    def plan(self, cases: Sequence[Case], device: str, settings: Settings) -> None:
        """Nothing."""

    def begin(self, case: Case, wanted: int, known: int, method: str) -> None:
        """Nothing."""

    def trial(self, case: Case, record: Record) -> None:
        """Nothing."""

    def end(self, result: Result) -> None:
        """Nothing."""

    def warn(self, line: str) -> None:
        """Nothing."""


@contextmanager
def _measuring(device: str, trial_s: float, locks: Path | None = None) -> Iterator[Machine]:
    """This machine: a worker process, one trial at a time; on a GPU the next candidates are compiled meanwhile."""
    turn = turns_on(lock_of(device_name(device), locks))
    worker = Worker(make_evaluator)
    try:
        if device != "cuda":
            yield Machine(answer=worker.answer, turn=turn)  # compilers would take the cores that are being timed
            return
        with closing(CompileAhead(trial_s)) as ahead:

            def compiler(target: Target) -> Prepare:
                case, kernel, gpu = target.subject.case, target.subject.kernel, target.key.capability
                return lambda config: ahead.submit(CompileRequest(launch=launch_of(case, kernel, config), target=gpu))

            yield Machine(answer=worker.answer, turn=turn, compiler=compiler, ahead=ahead.processes)
    finally:
        worker.close()


def _replaying(landscapes: Sequence[Landscape], seed: int) -> Machine:
    targets = {landscape.case: recorded_target(landscape) for landscape in landscapes}
    return Machine(answer=RecordedDevice(landscapes=landscapes, seed=seed).answer, target=targets.__getitem__)


def _store(path: Path | None, *, replay: Path | None) -> Path:
    if replay is not None and path is None:
        msg = f"replay={str(replay)!r} needs a store of its own: what is replayed was not measured here. Pass --store FILE."
        raise InvalidConfigError(msg)
    return prepare(path or paths.store_path())


def tune(
    problems: Problems = DEFAULT_PROBLEMS,
    *,
    settings: Settings = EFFORTS["normal"],
    store: Path | None = None,
    state_dir: Path | None = None,
    storage: str | None = None,
    heartbeat_s: int = HEARTBEAT_S,
    record: Path | None = None,
    replay: Path | None = None,
    report: Report | None = None,
    started: float | None = None,
) -> list[Result]:
    """Tune this machine, or replay a machine that was recorded.

    Args:
        problems: what is tuned; what is left empty takes the defaults.
        settings: what may be spent, see `settings.make_settings`.
        store: where winners go; None: the user's store, where `sonew` finds them.
        state_dir: where studies are kept; None: the user's.
        storage: search together with other processes: a journal file or a database URL (`search.storage.open_storage`).
        heartbeat_s: between two signs of life in a database.
        record: write every trial's samples to this file (`trials.landscape`).
        replay: take times from such a file instead of measuring; needs `store`.
        report: told how it goes.
        started: `time.monotonic()` from which the budget counts; None: now.

    Returns:
        A result per problem, in order.

    Raises:
        InvalidConfigError: a value outside its set, a place that cannot be written, a file that is not what it should be.
        NoDeviceError: the device that was asked for cannot be used.
        StorageError: the shared storage cannot be reached.
    """
    if sys._getframe(1).f_globals.get("__name__") == "__mp_main__":  # noqa: SLF001  # how multiprocessing names a program it imports
        msg = "tune is called while a worker process imports this program. Put the call below: if __name__ == '__main__':"
        raise InvalidConfigError(msg)
    if record is not None:
        prepare_folder(record.absolute().parent, subject=f"the record {record}", fix="Pass --record FILE in a folder that can.")
    began, told = time.monotonic() if started is None else started, report or SilentReport()
    check_sampler(settings.sampler or "tpe")
    store_path, state = _store(store, replay=replay), state_dir or paths.state_dir()
    fix = "Pass --state-dir FOLDER or set SONEW_STATE_DIR to a folder that can."
    studies = prepare_folder(state / "studies", subject=f"the state folder {state}", fix=fix)
    with ExitStack() as stack:
        if replay is not None:
            landscapes = read_landscapes(replay)
            cases, device, machine = [landscape.case for landscape in landscapes], "a recording", _replaying(landscapes, settings.seed)
        else:
            found = find_device(select_device(problems.device))
            cases, device = cases_of(problems, found.type), found.type
            if found.warning is not None:
                told.warn(found.warning)
            machine = stack.enter_context(_measuring(device, settings.trial_s))
        shared = stack.enter_context(open_storage(storage, heartbeat_s=heartbeat_s)) if storage is not None else None
        told.plan(cases, device, settings)
        run = Run(settings, store_path=store_path, studies=studies, machine=machine, report=told, started=began, shared=shared)
        try:
            return run.tune(cases)
        finally:
            if record is not None and run.searched:
                write_landscapes(record, [landscape_of(target, records) for target, records in run.searched if records])
