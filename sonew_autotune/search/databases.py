"""Studies in a database: Optuna's own storage, with its heartbeats."""

from __future__ import annotations

import random
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError, NoSuchModuleError, ProgrammingError, SQLAlchemyError

from sonew.errors import InvalidConfigError
from sonew_autotune.search.presence import LEASE, Bury, Opened, Unsigned, end_trial
from sonew_autotune.settings import StorageError

GRACE_BEATS: Final = 4  # heartbeats missed before a process counts as dead
OPENINGS: Final = 5
JOIN_S: Final = 5.0  # for the last beat, which a dead network may hold up
DRIVERS: Final = "Run pip install 'psycopg[binary]' for postgresql+psycopg://, pip install pymysql for mysql+pymysql://."


class Heartbeats:
    """Presence by Optuna's heartbeats in a database, which it opens.

    Args:
        url: of the database. interval_s: between two heartbeats.
    """

    def __init__(self, url: str, interval_s: int) -> None:
        self._interval_s = interval_s
        self._unsigned = Unsigned(GRACE_BEATS * interval_s)
        self._buried: Bury = lambda _study, _trial: None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.storage = RDBStorage(
                url,
                engine_kwargs={"pool_pre_ping": True},  # a server that was started anew closes what it had open
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
                with suppress(SQLAlchemyError, StorageInternalError):  # the next one may come through
                    self.storage.record_heartbeat(number)
            self.storage.remove_session()  # each thread has one

        self.storage.record_heartbeat(number)
        trial.set_user_attr(LEASE, "heartbeats")
        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(JOIN_S)

    def bury(self, study: optuna.Study, buried: Bury) -> None:
        """Let Optuna end trials whose heart stopped, and end those whose heart never beat."""
        self._buried = buried
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(study)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if LEASE not in trial.user_attrs and self._unsigned.overdue(trial) and end_trial(study, trial.number):
                buried(study, trial)


@contextmanager
def open_database(url: URL, *, heartbeat_s: int) -> Iterator[Opened]:
    """Open a database.

    Raises:
        InvalidConfigError: a driver that is not installed.
        StorageError: it cannot be reached, or fails later; the password is not shown.
    """
    shown = url.render_as_string(hide_password=True)
    try:
        beats = _heartbeats(url.render_as_string(hide_password=False), heartbeat_s)
    except (ImportError, NoSuchModuleError) as error:
        msg = f"storage={shown!r} needs a driver that is not installed ({error}). {DRIVERS}"
        raise InvalidConfigError(msg) from error
    except (SQLAlchemyError, StorageInternalError) as error:
        raise _failed(shown, error) from error
    try:
        yield Opened(storage=beats.storage, presence=beats, name=shown)
    except (SQLAlchemyError, StorageInternalError) as error:
        raise _failed(shown, error) from error
    finally:
        beats.storage.remove_session()
        beats.storage.engine.dispose()


def _heartbeats(url: str, heartbeat_s: int) -> Heartbeats:
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
    fix = "Check that it is there, that its server runs and lets you in; finished trials are kept, the same command goes on."
    return StorageError(f"the storage {shown} fails: {reason}. {fix}")
