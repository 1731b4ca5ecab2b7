"""Opening the search of a problem: alone on a journal file, or together with other processes in a shared storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import optuna
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from sonew.errors import SonewError
from sonew_autotune.search.journals import open_journal
from sonew_autotune.search.minimizing import Pruning, make_pruner, take_up_again
from sonew_autotune.search.plan import Plan
from sonew_autotune.search.presence import Opened, unreadable
from sonew_autotune.search.samplers import check_sampler, make_sampler
from sonew_autotune.search.study import DEFAULT_SAMPLER, Search
from sonew_autotune.settings import LARGEST_SEED
from sonew_autotune.space import Space
from sonew_autotune.store.files import set_aside
from sonew_autotune.store.journal import locked

SUBJECT: Final = "subject"
T = TypeVar("T")
Warn = Callable[[str], None]


def _load_study(opened: Opened, name: str, *, sampler: str, seed: int, subject: Mapping[str, Any]) -> optuna.Study:
    study = optuna.create_study(storage=opened.storage, study_name=name, direction="minimize", load_if_exists=True)
    if SUBJECT not in study.user_attrs:
        study.set_user_attr(SUBJECT, dict(subject))
    others = len(study.get_trials(deepcopy=False))  # on resume, and beside other processes, other proposals than theirs
    study.sampler = make_sampler(sampler, (seed + others) % LARGEST_SEED)
    return study


def _load_search(opened: Opened, name: str, space: Space, plan: Plan) -> Search:
    study = _load_study(opened, name, sampler=plan.sampler or DEFAULT_SAMPLER, seed=plan.seed, subject=plan.subject)
    return Search(space, study, opened.presence, plan)


def join_search(opened: Opened, name: str, space: Space, plan: Plan) -> Search:
    """Join the search of one problem in a shared storage; its name says everything that a time depends on.

    Raises:
        StorageError: what the storage holds cannot be read.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return _load_search(opened, name, space, plan)
    except (SonewError, OSError, SQLAlchemyError, StorageInternalError):
        raise
    except Exception as error:
        raise unreadable(opened.name, error) from error


@contextmanager
def _alone(folder: Path, name: str, load: Callable[[Opened], T], *, fresh: bool, warn: Warn) -> Iterator[T]:
    """What `load` makes of the journal of that name, which nobody else opens meanwhile; a broken one is set aside."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder / f"{name}.journal"
    with locked(path.with_suffix(".lock"), wait=False):
        if fresh:
            path.unlink(missing_ok=True)
        try:
            with open_journal(path, alone=True) as opened:
                load(opened)
        except OSError:
            raise
        except Exception as error:
            if not path.exists():
                raise  # whatever it was, no journal caused it
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            warn(f"{path} is broken ({reason}): it was moved to {set_aside(path, 'corrupt')} and the search begun anew")
        with open_journal(path, alone=True) as opened:
            yield load(opened)


@contextmanager
def open_search(folder: Path, name: str, space: Space, plan: Plan, *, fresh: bool = False, warn: Warn = lambda _: None) -> Iterator[Search]:
    """Open or resume the search of one problem, alone on its journal file.

    Args:
        folder: of the journals.
        name: of the study; everything a time depends on must be in it, since trials of one name are compared.
        space: the points. plan: how to go.
        fresh: forget what an earlier run found.
        warn: told, in a line, about a broken journal, which is set aside.

    Raises:
        LockedError: another process is searching the same problem.
        OSError: the journal cannot be read or written.
    """
    with _alone(folder, name, lambda opened: _load_search(opened, name, space, plan), fresh=fresh, warn=warn) as search:
        yield search


@contextmanager
def open_study(
    folder: Path,
    name: str,
    *,
    sampler: str = DEFAULT_SAMPLER,
    pruning: Pruning | None = None,
    seed: int = 0,
    subject: Mapping[str, Any] | None = None,
    fresh: bool = False,
    warn: Warn = lambda _: None,
) -> Iterator[optuna.Study]:
    """Open or resume a study that minimizes something else than a step's time, alone on its journal file; `minimize` drives it.

    Trials that a killed process left under way are ended, and their points queued to be tried again.

    Args:
        folder, fresh, warn: as `open_search`.
        name: of the study, a file's; everything a value depends on must be in it, since trials of one name are compared.
        sampler: one of `samplers.sampler_names` that proposes points. pruning: when trials are ended early, None: never.
        seed: of the sampler. subject: what the study is about, for those who read it without this program's help.

    Raises:
        InvalidConfigError: no such sampler.
        LockedError: another process has the study open.
        OSError: the journal cannot be read or written.
    """
    check_sampler(sampler)

    def load(opened: Opened) -> optuna.Study:
        study = _load_study(opened, name, sampler=sampler, seed=seed, subject=subject or {})
        study.pruner = make_pruner(pruning)
        opened.presence.bury(study, take_up_again)
        return study

    with _alone(folder, name, load, fresh=fresh, warn=warn) as study:
        yield study
