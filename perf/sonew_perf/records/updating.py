"""Brings the index's tables up to date with the files of a store."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

from sonew.documents import read_regular_file
from sonew.errors import InvalidConfigError
from sonew_perf.errors import RecordError
from sonew_perf.records.checks import escaped
from sonew_perf.records.database import clear
from sonew_perf.records.listing import Listed
from sonew_perf.records.model import Series
from sonew_perf.records.reading import Record, parse_record
from sonew_perf.records.results import TRAINING, series_id

ADD_FILE = "INSERT INTO files (path, size, mtime_ns, inode, origin, digest, run, date, body, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
ADD_POINT = "INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


@dataclass(slots=True)
class _Keys:
    """Keys of what is in the tables already, by content: of series their ids, of facts the JSON text."""

    series: dict[str, int]
    facts: dict[str, int]

    @classmethod
    def of(cls, database: sqlite3.Connection) -> _Keys:
        """Of a database."""
        made = (dict(database.execute(f"SELECT {name}, key FROM {table}")) for name, table in (("id", "series"), ("body", "facts")))  # noqa: S608  # constants
        return cls(*made)


def update(database: sqlite3.Connection, listed: Sequence[Listed], *, anew: bool = False) -> None:
    """Read what is new or has changed, forget what is gone, in one transaction. Nothing is written where nothing has changed.

    Args:
        database: the index. listed: every file of the store. anew: forget everything first.
    """
    if not anew and _known(database) == set(listed):
        return
    database.execute("BEGIN IMMEDIATE")
    try:
        if anew:
            clear(database)
        known = _known(database)  # again: another process may have done it meanwhile
        _forget(database, [old.path for old in known - set(listed)])
        keys = _Keys.of(database)
        for new in sorted(set(listed) - known):
            _add(database, new, keys)
        _resolve(database)
        database.execute("COMMIT")
    except BaseException:
        database.execute("ROLLBACK")
        raise


def _stored(path: str) -> str | bytes:
    """A path as the tables hold it, `os.fsdecode` takes it back: text, or the bytes where they are no UTF-8."""
    return path if path == escaped(path) else os.fsencode(path)


def _row(listed: Listed) -> tuple[str | bytes | int, ...]:
    path, *others = astuple(listed)
    return _stored(path), *others


def _known(database: sqlite3.Connection) -> set[Listed]:
    rows = database.execute("SELECT path, size, mtime_ns, inode, origin FROM files")
    return {Listed(os.fsdecode(path), *others) for path, *others in rows}


def _forget(database: sqlite3.Connection, paths: Iterable[str]) -> None:
    for path in paths:
        (key,) = database.execute("SELECT key FROM files WHERE path = ?", (_stored(path),)).fetchone()
        for table in ("points", "training"):
            database.execute(f"DELETE FROM {table} WHERE file = ?", (key,))  # noqa: S608  # names from the line above
        database.execute("DELETE FROM files WHERE key = ?", (key,))


def _add(database: sqlite3.Connection, listed: Listed, keys: _Keys) -> None:
    """Read a file; one that is no record is remembered with its reason."""
    digest, path = "", Path(listed.path)
    try:
        data = read_regular_file(path)
        digest = hashlib.sha256(data).hexdigest()
        record = parse_record(data, stem=path.stem, path=listed.path, origin=listed.origin)
    except (OSError, InvalidConfigError, RecordError) as error:
        reason = f"cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)
        database.execute(ADD_FILE, (*_row(listed), digest, None, None, None, escaped(reason)))
        return
    run = record.run
    about = (*_row(listed), digest, run.id, run.date, json.dumps(asdict(run)), None)
    _add_results(database, database.execute(ADD_FILE, about).lastrowid or 0, record, keys)


def _add_results(database: sqlite3.Connection, file: int, record: Record, keys: _Keys) -> None:
    rows = []
    for result in record.results:
        point = result.point
        numbers = point.median, point.q1, point.q3
        keyed = _series_key(database, result.series, keys), point.status, point.reason
        facts = _facts_key(database, json.dumps(point.facts), keys)
        rows.append((file, *keyed, *numbers, json.dumps(point.against), facts, array("d", point.samples).tobytes()))
    database.executemany(ADD_POINT, rows)
    training = [(file, json.dumps(entry)) for entry in record.entries if entry["kind"] == TRAINING]
    database.executemany("INSERT INTO training VALUES (?, ?)", training)


def _series_key(database: sqlite3.Connection, series: Series, keys: _Keys) -> int:
    identity = series_id(series)
    if identity not in keys.series:
        body = json.dumps(asdict(series))
        keys.series[identity] = database.execute("INSERT INTO series (id, body) VALUES (?, ?)", (identity, body)).lastrowid or 0
    return keys.series[identity]


def _facts_key(database: sqlite3.Connection, facts: str, keys: _Keys) -> int:
    if facts not in keys.facts:
        keys.facts[facts] = database.execute("INSERT INTO facts (body) VALUES (?)", (facts,)).lastrowid or 0
    return keys.facts[facts]


def _resolve(database: sqlite3.Connection) -> None:
    """Show every run once: of files with the same run the committed one, of copies under other names the first; say what is left out."""
    shown: dict[str, tuple[str | bytes, str]] = {}  # run id to path and content
    contents: dict[str, str | bytes] = {}  # content to path
    verdicts = []
    found = database.execute("SELECT key, path, digest, run FROM files WHERE run IS NOT NULL ORDER BY origin, path")
    for key, path, digest, run in found.fetchall():
        reason = None
        if run in shown:
            first, other = shown[run]
            reason = None if digest == other else f"{_short(first)} has the same run with other content, and is the one that is shown"
        elif digest in contents:
            reason = f"{_short(contents[digest])} has the same content, and is the one that counts"
        verdicts.append((int(run not in shown and reason is None), reason, key))
        if verdicts[-1][0]:
            shown[run], contents[digest] = (path, digest), path
    database.executemany("UPDATE files SET shown = ?, reason = ? WHERE key = ?", verdicts)


def _short(path: str | bytes) -> str:
    """Folder and name: the whole path is this machine's own."""
    return escaped("/".join(Path(os.fsdecode(path)).parts[-2:]))
