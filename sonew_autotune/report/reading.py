"""Studies as their storages have them: every journal of a state folder, or a shared storage. Nothing is written, locked or signed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from sonew.documents import read_regular_file
from sonew.errors import InvalidConfigError
from sonew_autotune.report.studies import RawStudy
from sonew_autotune.search.opening import SUBJECT
from sonew_autotune.search.storage import open_storage
from sonew_autotune.search.study import RECORD
from sonew_autotune.search.together import ENTRY, SUFFIX

LARGEST_JOURNAL: Final = 2**29  # bytes: about a hundred thousand trials

Warn = Callable[[str], None]


class _NoLock:
    """For a private copy of a journal: nobody else has it."""

    def acquire(self) -> bool:
        """Nothing to wait for."""
        return True

    def release(self) -> None:
        """Nothing to give back."""


def _read(storage: BaseStorage, source: str) -> list[RawStudy]:
    """Every study in a storage; a study that holds another one's decision belongs to that one."""
    names = optuna.get_all_study_names(storage)
    studies = []
    for name in sorted(name for name in names if not name.endswith(SUFFIX)):
        study = optuna.load_study(storage=storage, study_name=name)
        trials = study.get_trials(deepcopy=False)
        entry = None
        if f"{name}{SUFFIX}" in names:
            decisions = optuna.load_study(storage=storage, study_name=f"{name}{SUFFIX}").get_trials(deepcopy=False)
            entry = next((trial.user_attrs[ENTRY] for trial in reversed(decisions) if ENTRY in trial.user_attrs), None)
        studies.append(
            RawStudy(
                name=name,
                source=source,
                subject=study.user_attrs.get(SUBJECT),
                records=[trial.user_attrs[RECORD] for trial in trials if RECORD in trial.user_attrs],
                running=sum(trial.state == TrialState.RUNNING and RECORD not in trial.user_attrs for trial in trials),
                entry=entry,
            )
        )
    return studies


def read_journal(path: Path) -> list[RawStudy]:
    """The studies in a journal, as of now: a search that writes to it goes on undisturbed.

    What is read is a copy of its whole lines. A line that its writer has not finished, and one that a killed writer left, are not yet
    there.

    Raises:
        InvalidConfigError: it is broken, no regular file, or too large.
        OSError: it cannot be read.
    """
    data = read_regular_file(path, limit=LARGEST_JOURNAL)
    whole = data[: data.rfind(b"\n") + 1]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.journal"
        copy.write_bytes(whole)
        try:
            studies = _read(JournalStorage(JournalFileBackend(str(copy), lock_obj=_NoLock())), str(path))  # type: ignore[arg-type]  # the base class is private
        except Exception as error:  # whatever Optuna meets in lines that are none of its own
            raise _broken(path, f"{type(error).__name__}: {error}".splitlines()[0][:200]) from error
    if not studies and (whole or not data.startswith(b"{"[: len(data)])):
        raise _broken(path, "its first line begins no study")
    return studies


def _broken(path: Path, reason: str) -> InvalidConfigError:
    return InvalidConfigError(f"{path} is no journal of a study, or a broken one ({reason}). Move it away, or tune again with --fresh.")


def read_state(folder: Path, warn: Warn) -> list[RawStudy]:
    """The studies of every journal in a state folder.

    Args:
        folder: as `sonew.paths.state_dir`; one that is missing holds none.
        warn: told, in a line, about a journal that is broken and therefore left out.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    studies: list[RawStudy] = []
    for path in sorted((folder / "studies").glob("*.journal")):
        try:
            studies += read_journal(path)
        except (InvalidConfigError, OSError) as error:
            warn(str(error))
    return studies


def read_storage(url: str) -> Sequence[RawStudy]:
    """The studies in a shared storage.

    Args:
        url: a path is a journal file, everything else a database URL.

    Raises:
        InvalidConfigError: not a storage URL, or a file that is not there or broken.
        StorageError: the database cannot be reached or fails.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if "://" not in url:
        _require(Path(url), url)
        return read_journal(Path(url))
    if (file := _sqlite_file(url)) is not None:
        _require(file, url)  # opening it would make it
    with open_storage(url) as opened:
        return _read(opened.storage, opened.name)


def _require(path: Path, url: str) -> None:
    if not path.exists():
        msg = f"storage={url!r} does not exist, so there is nothing to report. Pass the storage that the workers were given."
        raise InvalidConfigError(msg)


def _sqlite_file(url: str) -> Path | None:
    """The file of an SQLite URL, None for everything else."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return None  # `open_storage` has the message
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None
