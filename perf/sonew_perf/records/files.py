"""Record files: `{"schema_version": ..., "entries": [...]}`, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from sonew.documents import SURROGATE
from sonew_autotune.store.files import write_atomically
from sonew_autotune.store.journal import locked
from sonew_perf.errors import RecordError

SCHEMA_VERSION: Final = 1
OUTPUT_FIX: Final = "Pass a writable --output."
Entry = dict[str, Any]


def json_text(value: Entry) -> str:
    """JSON text that can be read again: bytes of a file's name that are no UTF-8, which a message may quote, become "?"."""
    text = json.dumps(value, allow_nan=False)
    if SURROGATE.search(text.encode()) is None:
        return text
    return json.dumps(json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")))


def document(entries: Sequence[Entry], run: Entry | None = None) -> str:
    """The entries, and what is said of their run, as JSON text: an entry per line so that a committed record shows readable differences."""
    lines = ",\n".join(json_text(entry) for entry in entries)
    about = "" if run is None else f' "run": {json_text(run)},'
    return f'{{"schema_version": {SCHEMA_VERSION},{about} "entries": [\n{lines}\n]}}\n'


def write_text(path: Path, text: str, *, fix: str) -> Path:
    """Replace a file in one step: a reader, or the next run after a kill, sees the old file or the new one.

    Args:
        path: of the file; its folder is made where it is missing. text: the content. fix: how to choose another place, as a sentence.

    Returns:
        The path.

    Raises:
        RecordError: the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        msg = f"{path} cannot be written: {error}. {fix}"
        raise RecordError(msg) from error
    return path


def write_entries(path: Path, entries: Sequence[Entry]) -> None:
    """Replace the record, as `write_text`."""
    write_text(path, document(entries), fix=OUTPUT_FIX)


def read_entries(path: Path) -> list[Entry]:
    """The entries of a record, none where there is no file.

    Raises:
        RecordError: the file is not a record of this version.
    """
    if not path.exists():
        return []
    fix = "Move it away or pass another --output."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path} is not readable as JSON ({error}). {fix}"
        raise RecordError(msg) from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        msg = f"{path} has schema_version {version!r}, expected {SCHEMA_VERSION}. {fix}"
        raise RecordError(msg)
    entries = content.get("entries")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        msg = f"{path} has no list of entries. {fix}"
        raise RecordError(msg)
    return entries


@contextmanager
def holding(lock: Path, *, fix: str) -> Iterator[None]:
    """Hold a lock file, for as long as files beside it are read and written again.

    Raises:
        RecordError: the lock cannot be made; `fix` as `write_text`.
    """
    with ExitStack() as held:
        try:
            held.enter_context(locked(lock))
        except OSError as error:
            msg = f"{lock.parent} cannot be written: {error}. {fix}"
            raise RecordError(msg) from error
        yield


@contextmanager
def adding(path: Path) -> Iterator[list[Entry]]:
    """The entries of a record that more are written to: other commands that add to it wait meanwhile, so that no entry is lost.

    Raises:
        RecordError: as `read_entries`, or its folder cannot be written.
    """
    real = path.resolve()
    with holding(real.with_name(f"{real.name}.lock"), fix=OUTPUT_FIX):
        yield read_entries(path)
