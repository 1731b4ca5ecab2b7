"""Storages that many processes may share: by a path a journal file, by a URL a database. Optuna's storages are the distributed engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from sonew.errors import InvalidConfigError, SonewError
from sonew_autotune.search.databases import open_database
from sonew_autotune.search.journals import open_journal
from sonew_autotune.search.presence import Opened, unreadable
from sonew_autotune.settings import HEARTBEAT_S
from sonew_autotune.store.files import prepare_folder

SERVERS: Final = ("postgresql", "mysql", "mariadb", "sqlite")
FORMS: Final = (
    "a journal file on a disk that all workers share (studies.journal), or a database "
    "(postgresql+psycopg://user@host/name, mysql+pymysql://user@host/name, sqlite:///file.db)"
)


def _parsed(url: str) -> URL | None:
    """The database URL, None for a path."""
    if "://" not in url:
        return None
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        msg = f"the storage is not a URL ({str(error).split(' from ')[0]}). Use {FORMS}."  # it may hold a password
        raise InvalidConfigError(msg) from error
    if parsed.get_backend_name() not in SERVERS:
        shown = parsed.render_as_string(hide_password=True)
        msg = f"storage={shown!r} names {parsed.get_backend_name()!r}, which is not one of {list(SERVERS)}. Use {FORMS}."
        raise InvalidConfigError(msg)
    return parsed


@contextmanager
def open_storage(url: str, *, heartbeat_s: int = HEARTBEAT_S) -> Iterator[Opened]:
    """Open a storage that many processes may share.

    Args:
        url: a path is a journal file, everything else a database URL.
        heartbeat_s: between two heartbeats in a database.

    Raises:
        InvalidConfigError: not a storage, or a driver that is not installed.
        StorageError: the journal cannot be read, or the database cannot be reached or fails later; the password is not shown.
    """
    parsed = _parsed(url)
    if parsed is not None:
        with open_database(parsed, heartbeat_s=heartbeat_s) as opened:
            yield opened
        return
    path = Path(url).absolute()
    prepare_folder(path.parent, subject=f"the storage {url}", fix=f"Use {FORMS}.")
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(open_journal(path, alone=False))
        except (SonewError, OSError):
            raise
        except Exception as error:
            raise unreadable(str(path), error) from error
        yield opened
