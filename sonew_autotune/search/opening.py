"""Opening the search of a problem: alone on a journal file, or together with other processes in a shared storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import optuna
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from sonew.errors import SonewError
from sonew_autotune.search.journals import open_journal
from sonew_autotune.search.plan import Plan
from sonew_autotune.search.presence import Opened, unreadable
from sonew_autotune.search.samplers import make_sampler
from sonew_autotune.search.study import DEFAULT_SAMPLER, Search
from sonew_autotune.settings import LARGEST_SEED
from sonew_autotune.space import Space
from sonew_autotune.store.files import set_aside
from sonew_autotune.store.journal import locked

SUBJECT: Final = "subject"


def _load_search(opened: Opened, name: str, space: Space, plan: Plan) -> Search:
    study = optuna.create_study(storage=opened.storage, study_name=name, direction="minimize", load_if_exists=True)
    if SUBJECT not in study.user_attrs:
        study.set_user_attr(SUBJECT, dict(plan.subject))
    others = len(study.get_trials(deepcopy=False))  # on resume, and beside other processes, other proposals than theirs
    study.sampler = make_sampler(plan.sampler or DEFAULT_SAMPLER, (plan.seed + others) % LARGEST_SEED)
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
def open_search(
    folder: Path, name: str, space: Space, plan: Plan, *, fresh: bool = False, warn: Callable[[str], None] = lambda _: None
) -> Iterator[Search]:
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
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder / f"{name}.journal"
    with locked(path.with_suffix(".lock"), wait=False):
        if fresh:
            path.unlink(missing_ok=True)
        try:
            with open_journal(path, alone=True) as opened:
                _load_search(opened, name, space, plan)
        except OSError:
            raise
        except Exception as error:
            if not path.exists():
                raise  # whatever it was, no journal caused it
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            warn(f"{path} is broken ({reason}): it was moved to {set_aside(path, 'corrupt')} and the search begun anew")
        with open_journal(path, alone=True) as opened:
            yield _load_search(opened, name, space, plan)
