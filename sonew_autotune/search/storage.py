"""Where a study lives and who is alive in it: journal files with locks that die with their holder, or a database with heartbeats.

Optuna's storages are the distributed engine. What is added: in a journal, which has no heartbeats, each process holds a lease, a
locked file beside the journal that the system releases with the process, so that the dead are known at once; in a database, Optuna's
own heartbeats.
"""

from __future__ import annotations

import fcntl
import os
import random
import secrets
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, ProgrammingError, SQLAlchemyError

from sonew.errors import InvalidConfigError
from sonew_autotune.settings import StorageError
from sonew_autotune.store.files import prepare_folder
from sonew_autotune.store.journal import cut_torn_line

LEASE: Final = "lease"
OPENINGS: Final = 5
UNSIGNED_S: Final = 3.0  # how long a trial may be seen without its process's name
HEARTBEAT_S: Final = 15
GRACE_BEATS: Final = 4  # heartbeats missed before a process counts as dead
SERVERS: Final = ("postgresql", "mysql", "mariadb", "sqlite")
FORMS: Final = (
    "a journal file on a disk that all workers share (studies.journal), or a database "
    "(postgresql+psycopg://user@host/name, mysql+pymysql://user@host/name, sqlite:///file.db)"
)
DRIVERS: Final = "Run pip install 'psycopg[binary]' for postgresql+psycopg://, pip install pymysql for mysql+pymysql://."

Bury = Callable[[optuna.Study, FrozenTrial], None]


class Presence(Protocol):
    """Who is alive among the processes that work on a study."""

    def working(self, trial: Trial) -> AbstractContextManager[None]:
        """Around the evaluation of a trial: while it lasts, others see that somebody is at it."""

    def bury(self, study: optuna.Study, buried: Bury) -> None:
        """End the trials of processes that died; `buried` is called with each."""


class JournalLock:
    """A lock for Optuna's journal that cannot outlive its holder, and that cuts off what a killed writer left half written."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._path = journal.with_name(f"{journal.name}.write-lock")
        self._turn = threading.Lock()
        self._handle: IO[str] | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._turn.acquire()
        try:
            self._handle = self._path.open("a")
            fcntl.flock(self._handle, fcntl.LOCK_EX)
            cut_torn_line(self._journal)
        except BaseException:
            self.release()
            raise
        return True

    def release(self) -> None:
        """Give it back."""
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()
        self._turn.release()


class Leases:
    """Presence by locked files beside a journal.

    Args:
        folder: of the leases. alone: nobody else can be at work on the study, so that every other lease is dead.
    """

    def __init__(self, folder: Path, *, alone: bool) -> None:
        self._folder, self._alone = folder, alone
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._handle: IO[str] | None = None
        self._unsigned: dict[int, float] = {}

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
            return time.monotonic() - self._unsigned.setdefault(trial._trial_id, time.monotonic()) > UNSIGNED_S  # noqa: SLF001  # its only unique name
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
            if self._dead(trial):
                try:
                    study.tell(trial.number, state=TrialState.FAIL)
                except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
                    continue  # another process was faster
                buried(study, trial)


class Heartbeats:
    """Presence by Optuna's heartbeats in a database, which it opens.

    Args:
        url: of the database. interval_s: between two heartbeats.
    """

    def __init__(self, url: str, interval_s: int) -> None:
        self._interval_s = interval_s
        self._buried: Bury = lambda _study, _trial: None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.storage = RDBStorage(
                url,
                heartbeat_interval=interval_s,
                grace_period=GRACE_BEATS * interval_s,
                heartbeat_stale_trial_callback=self._called,
            )

    def _called(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Optuna's callback for a trial that it found dead."""
        self._buried(study, trial)

    @contextmanager
    def working(self, trial: Trial) -> Iterator[None]:
        """Beat until the evaluation ends."""
        done = threading.Event()
        number = trial._trial_id  # noqa: SLF001  # the storage's public methods take it, and nothing else gives it

        def beat() -> None:
            while not done.wait(self._interval_s):
                self.storage.record_heartbeat(number)
            self.storage.remove_session()  # each thread has one

        self.storage.record_heartbeat(number)
        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def bury(self, study: optuna.Study, buried: Bury) -> None:
        """Let Optuna end trials whose heart stopped."""
        self._buried = buried
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(study)


def ask(study: optuna.Study, distributions: dict[str, BaseDistribution] | None = None) -> Trial:
    """`study.ask`, without the advice to leave heartbeats to `study.optimize`: a presence beats here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed to be used with")
        return study.ask(distributions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An open storage and who is alive in it. `name`: how it is shown, without a password."""

    storage: BaseStorage
    presence: Presence
    name: str


def _journal(path: Path) -> BaseStorage:
    lock = JournalLock(path)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))  # type: ignore[arg-type]  # the base class is private


@contextmanager
def open_journal(path: Path, *, alone: bool) -> Iterator[Opened]:
    """Open a journal file.

    Args:
        path: of the journal. alone: the caller holds a lock that keeps every other process out.
    """
    leases = Leases(path.with_name(f"{path.name}.leases"), alone=alone)
    leases.open()
    try:
        lock = JournalLock(path)
        lock.acquire()  # heals the file before it is first read
        lock.release()
        yield Opened(storage=_journal(path), presence=leases, name=str(path))
    finally:
        leases.close()


def _parsed(url: str) -> URL | None:
    """The database URL, None for a path."""
    if "://" not in url:
        return None
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        msg = f"storage={url!r} is not a storage URL ({error}). Use {FORMS}."
        raise InvalidConfigError(msg) from error
    if parsed.get_backend_name() not in SERVERS:
        msg = f"storage={url!r} names {parsed.get_backend_name()!r}, which is not one of {list(SERVERS)}. Use {FORMS}."
        raise InvalidConfigError(msg)
    return parsed


@contextmanager
def open_storage(url: str, *, heartbeat_s: int = HEARTBEAT_S) -> Iterator[Opened]:
    """Open a storage that many processes may share.

    Args:
        url: a path is a journal file, everything else a database URL.
        heartbeat_s: between two heartbeats in a database.

    Raises:
        InvalidConfigError: not a storage URL, or a driver that is not installed.
        StorageError: the database cannot be reached or fails later; the password is not shown.
    """
    parsed = _parsed(url)
    if parsed is None:
        path = Path(url).absolute()
        prepare_folder(path.parent, subject=f"the storage {url}", fix=f"Use {FORMS}.")
        with open_journal(path, alone=False) as opened:
            yield opened
        return
    shown = parsed.render_as_string(hide_password=True)
    try:
        beats = _open_database(url, heartbeat_s)
    except (ImportError, NoSuchModuleError) as error:
        msg = f"storage={shown!r} needs a driver that is not installed ({error}). {DRIVERS}"
        raise InvalidConfigError(msg) from error
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise _failed(shown, error) from error
    try:
        yield Opened(storage=beats.storage, presence=beats, name=shown)
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise _failed(shown, error) from error
    finally:
        beats.storage.remove_session()
        beats.storage.engine.dispose()


def _open_database(url: str, heartbeat_s: int) -> Heartbeats:
    """Open a database. Of processes that meet an empty one together each makes the tables, and all but one fail and look again."""
    for _ in range(OPENINGS):
        try:
            return Heartbeats(url, heartbeat_s)
        except (IntegrityError, ProgrammingError):
            time.sleep(random.uniform(0.1, 0.5))  # noqa: S311  # to step out of each other's way
    return Heartbeats(url, heartbeat_s)


def _failed(shown: str, error: Exception) -> StorageError:
    """The database's own first line, and what to do."""
    cause = error.__cause__ or error
    lines = [line.strip() for line in str(getattr(cause, "orig", None) or cause).splitlines() if line.strip()]
    reason = lines[0] if lines else type(error).__name__
    fix = "Check that the server runs and lets you in; finished trials are kept, the same command goes on."
    return StorageError(f"the storage {shown} fails: {reason}. {fix}")
