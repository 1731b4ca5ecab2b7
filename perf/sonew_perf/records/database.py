"""The index's file: an SQLite database that may be thrown away at any time, and is where it is damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import Final, TypeVar

from sonew_perf.errors import RecordError

VERSION: Final = 2  # of the tables below and of what `reading` makes of a record: raise it when either changes
NAME: Final = "index.sqlite"
WAIT_S: Final = 120.0  # for another process that rebuilds a large index
CACHE_KIB: Final = 200_000  # a rebuild stays in memory until it is committed, so that readers are not kept out meanwhile
BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

TABLES: Final = ("files", "series", "points", "facts", "training")
SCHEMA: Final = """
CREATE TABLE files (
    key INTEGER PRIMARY KEY, path TEXT UNIQUE NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
    origin TEXT NOT NULL, digest TEXT NOT NULL, run TEXT, date TEXT, body TEXT, reason TEXT, shown INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE series (key INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, body TEXT NOT NULL);
CREATE TABLE points (
    file INTEGER NOT NULL, series INTEGER NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, median REAL, q1 REAL, q3 REAL,
    against TEXT NOT NULL, facts INTEGER NOT NULL, samples BLOB NOT NULL
);
CREATE TABLE facts (key INTEGER PRIMARY KEY, body TEXT UNIQUE NOT NULL);
CREATE TABLE training (file INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX points_by_series ON points (series, file);
CREATE INDEX points_by_file ON points (file);
"""

T = TypeVar("T")


def _connect(place: Path | str) -> sqlite3.Connection:
    """A connection without automatic transactions, for any thread that holds the lock."""
    connection = sqlite3.connect(place, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute("PRAGMA synchronous = NORMAL")
        if _version(connection) != VERSION:
            connection.execute("BEGIN IMMEDIATE")
            _make_tables(connection)
            connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _make_tables(connection: sqlite3.Connection) -> None:
    """Make them in an empty file, which another process may have done meanwhile."""
    version = _version(connection)
    if version == 0 and not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        for statement in SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
    elif version != VERSION:
        msg = f"the tables have version {version}, not {VERSION}"
        raise sqlite3.DatabaseError(msg)


def clear(connection: sqlite3.Connection) -> None:
    """Empty every table, inside the caller's transaction: readers see what was there until it ends."""
    for table in TABLES:
        connection.execute(f"DELETE FROM {table}")  # noqa: S608  # a constant


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


class Database:
    """The index's tables in a store's folder, or in memory where the folder cannot be written.

    Args:
        folder: the store's; it is made where there is none.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._lock = RLock()
        self._connection: sqlite3.Connection | None = None

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What the work returns. A damaged file is removed and the work done again on empty tables, in memory where none can be made.

        Args:
            work: given the connection; a connection that it has not seen before may have empty tables.

        Raises:
            RecordError: another process has been writing all the time.
        """
        with self._lock:
            for connect in (self._on_file, self._on_new_file, self._in_memory):
                try:
                    return work(connect())
                except sqlite3.DatabaseError as error:
                    last = error
                    self._give_up(error)
            msg = f"no index can be made, neither in {self._path.parent} nor in memory: {last}. Look at the disk."
            raise RecordError(msg)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _give_up(self, error: sqlite3.DatabaseError) -> None:
        """After an error: wait no longer for a busy file, leave any other."""
        self.close()
        if getattr(error, "sqlite_errorcode", None) in BUSY:
            msg = f"{self._path} has been written by another process for {WAIT_S:.0f} s. Wait until it ends, or remove the file."
            raise RecordError(msg) from error

    def _on_file(self) -> sqlite3.Connection:
        if self._connection is None:
            with suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _connect(self._path)
        return self._connection

    def _on_new_file(self) -> sqlite3.Connection:
        self._unlink()
        return self._on_file()

    def _in_memory(self) -> sqlite3.Connection:
        self._connection = _connect(":memory:")
        return self._connection

    def _unlink(self) -> None:
        with suppress(OSError):
            for name in (NAME, f"{NAME}-journal"):
                self._path.with_name(name).unlink(missing_ok=True)
