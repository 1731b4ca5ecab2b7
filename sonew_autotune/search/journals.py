"""Studies in a journal file: a lock that dies with its holder, and a lease for each process, so that the dead are known at once.

Optuna's journals have no heartbeats. Each process holds a locked file beside the journal, which the system releases with the process.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from sonew.errors import InvalidConfigError
from sonew_autotune.search.presence import LEASE, Bury, Opened, Unsigned, end_trial
from sonew_autotune.store.journal import cut_torn_line

UNSIGNED_S: Final = 10.0  # how long a trial may be seen without its process's name
OPENING: Final = b'{"op_code"'  # how every journal of Optuna's begins


class JournalLock:
    """A lock for Optuna's journal that cannot outlive its holder, and that cuts off what a killed writer left half written."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._path = journal.with_name(f"{journal.name}.write-lock")
        self._held = threading.local()  # each thread opens the file anew, and so threads exclude one another as processes do

    def acquire(self) -> bool:
        """Wait for the lock."""
        handle: IO[str] = self._path.open("a")
        self._held.handle = handle
        fcntl.flock(handle, fcntl.LOCK_EX)
        cut_torn_line(self._journal)
        return True

    def release(self) -> None:
        """Give it back."""
        self._held.handle.close()


class Leases:
    """Presence by locked files beside a journal.

    Args:
        folder: of the leases. alone: nobody else can be at work on the study, so that every other lease is dead.
    """

    def __init__(self, folder: Path, *, alone: bool) -> None:
        self._folder, self._alone = folder, alone
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._handle: IO[str] | None = None
        self._unsigned = Unsigned(UNSIGNED_S)

    def open(self) -> None:
        """Take this process's lease."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._handle = (self._folder / self._name).open("a")
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def close(self) -> None:
        """Give it back."""
        if self._handle is not None:
            (self._folder / self._name).unlink(missing_ok=True)
            self._handle.close()

    @contextmanager
    def working(self, trial: Trial) -> Iterator[None]:
        """Sign the trial."""
        trial.set_user_attr(LEASE, self._name)
        yield

    def _dead(self, trial: FrozenTrial) -> bool:
        name = trial.user_attrs.get(LEASE)
        if name == self._name:
            return False
        if self._alone:
            return True
        if name is None:  # its process is about to sign it, or died in that moment
            return self._unsigned.overdue(trial)
        try:
            with (self._folder / name).open("a") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        (self._folder / name).unlink(missing_ok=True)
        return True

    def bury(self, study: optuna.Study, buried: Bury) -> None:
        """End running trials whose lease nobody holds."""
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._dead(trial) and end_trial(study, trial.number):
                buried(study, trial)


def check_journal(path: Path) -> None:
    """Refuse a file that is there and is no journal, before anything is written to it.

    Raises:
        InvalidConfigError: with what to pass instead.
    """
    if path.is_dir():
        msg = f"storage={str(path)!r} is a folder. Pass a file in it, for example {path / 'studies.journal'}."
        raise InvalidConfigError(msg)
    if not path.exists():
        return
    with path.open("rb") as handle:
        start = handle.read(len(OPENING))
    if start != OPENING[: len(start)]:
        fix = f"Pass another file, or sqlite:///{path} if it is an SQLite database."
        msg = f"{path} is not a journal of studies: it was left as it is. {fix}"
        raise InvalidConfigError(msg)


def _journal(path: Path) -> BaseStorage:
    lock = JournalLock(path)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))  # type: ignore[arg-type]  # the base class is private


@contextmanager
def open_journal(path: Path, *, alone: bool) -> Iterator[Opened]:
    """Open a journal file.

    Args:
        path: of the journal. alone: the caller holds a lock that keeps every other process out.

    Raises:
        InvalidConfigError: a file that is no journal.
    """
    check_journal(path)
    leases = Leases(path.with_name(f"{path.name}.leases"), alone=alone)
    leases.open()
    try:
        lock = JournalLock(path)
        lock.acquire()  # heals the file before it is first read
        lock.release()
        yield Opened(storage=_journal(path), presence=leases, name=str(path))
    finally:
        leases.close()
