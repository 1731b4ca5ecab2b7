"""Who is alive among the processes that work on a study: what journals and databases have in common."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from sonew_autotune.settings import StorageError

LEASE: Final = "lease"  # the attribute in which a trial names its process

Bury = Callable[[optuna.Study, FrozenTrial], None]


class Presence(Protocol):
    """Who is alive among the processes that work on a study."""

    def working(self, trial: Trial) -> AbstractContextManager[None]:
        """Around the evaluation of a trial: while it lasts, others see that somebody is at it."""

    def bury(self, study: optuna.Study, buried: Bury) -> None:
        """End the trials of processes that died; `buried` is called with each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An open storage and who is alive in it. `name`: how it is shown, without a password."""

    storage: BaseStorage
    presence: Presence
    name: str


class Unsigned:
    """Trials that are seen without a process's name: one is about to sign them, or died in that moment.

    Time is counted from when this process first saw them: clocks of several machines need not agree.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: dict[int, float] = {}

    def overdue(self, trial: FrozenTrial) -> bool:
        """Whether it has been so for too long."""
        number = trial._trial_id  # noqa: SLF001  # the only name that is unique in a storage
        return time.monotonic() - self._seen.setdefault(number, time.monotonic()) > self._seconds


def unreadable(name: str, error: Exception) -> StorageError:
    """What is said of a storage whose content Optuna cannot make sense of."""
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return StorageError(f"the storage {name} cannot be read ({reason}): it was left as it is. Pass another --storage.")


def ask(study: optuna.Study, distributions: dict[str, BaseDistribution] | None = None) -> Trial:
    """`study.ask`, without the advice to leave heartbeats to `study.optimize`: a presence beats here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed to be used with")
        return study.ask(distributions)


def end_trial(study: optuna.Study, number: int, value: float | None = None) -> bool:
    """End a trial, failed where there is no value; False where another process has ended it."""
    try:
        study.tell(number, value, state=TrialState.FAIL if value is None else None)
    except (ValueError, UpdateFinishedTrialError):
        return False
    return True
