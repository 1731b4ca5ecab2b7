"""Writing winners to the user's store: whole files, one writer at a time, nothing of others lost. `sonew.tuned` reads them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from sonew.documents import DEEPEST, LARGEST_FILE, DocumentError, parse_json, read_regular_file, too_deep
from sonew.errors import InvalidConfigError
from sonew.tuned import NOT_A_STORE, SCHEMA_VERSION, Entry, Key, is_known_schema, read_store
from sonew_autotune.store.files import prepare_folder, set_aside, sweep, write_atomically, writing
from sonew_autotune.store.journal import locked

OTHER_PLACE: Final = "pass --store FILE or set SONEW_STORE to a file that can"
DEEPEST_ENTRY: Final = DEEPEST - 2  # the store's own list and object are two levels

Change = Callable[[list[Any]], list[Any]]
Identity = tuple[str, str]


def identity(key: object, kind: object) -> Identity:
    """What an entry is stored under: entries with the same one replace each other."""
    return json.dumps(key, sort_keys=True), json.dumps(kind)


def identity_of(entry: Entry) -> Identity:
    """The identity of an entry."""
    return identity(asdict(entry.key), entry.kind)


def identity_of_raw(raw: object) -> Identity | None:
    """The identity of an entry as it stands in a file, None for what is no entry."""
    return identity(raw.get("key"), raw.get("kind")) if isinstance(raw, dict) else None


def _refuse_foreign(path: Path, document: dict[str, Any]) -> None:
    """A store of another version, or a bundle, holds what this version cannot carry on: it is left as it is."""
    if (kind := document.get("kind")) is not None:
        msg = f"{path} is a {str(kind)[:40]!r} and no store: nothing was changed. Import it (sonew-autotune import), or {OTHER_PLACE}."
        raise InvalidConfigError(msg)
    if not is_known_schema(document):
        found = document.get("schema_version")
        msg = (
            f"the store {path} has schema_version {found!r}, this version of sonew writes {SCHEMA_VERSION}: nothing was changed. "
            f"Use the version of sonew that wrote it, or move the file away, or {OTHER_PLACE}."
        )
        raise InvalidConfigError(msg)


def short_name(entry: Entry) -> str:
    """Eight hexadecimal digits that name an entry wherever it is stored: a digest of its key and kind."""
    return hashlib.sha256("\n".join(identity_of(entry)).encode("ascii")).hexdigest()[:8]


def read_document(path: Path) -> tuple[dict[str, Any], str | None]:
    """The store's document as it stands, with entries that are not understood; and why it is corrupt, in which case it is empty.

    Raises:
        InvalidConfigError: another version's store, a bundle, or no regular file: nothing that may be replaced.
        OSError: it cannot be read.
    """
    empty: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "entries": []}
    try:
        document = parse_json(read_regular_file(path))
    except FileNotFoundError:
        return empty, None
    except DocumentError as error:
        return empty, f"is not readable as JSON ({error})"
    if not isinstance(document, dict) or not isinstance(document.get("entries"), list):
        return empty, f"is {NOT_A_STORE}"
    _refuse_foreign(path, document)
    return document, None


def _make_folder(path: Path) -> Path:
    real = path.resolve()
    prepare_folder(real.parent, subject=f"the store {path}", fix=f"{OTHER_PLACE[0].upper()}{OTHER_PLACE[1:]}.")
    return real


def prepare(path: Path) -> Path:
    """The store's real path, with its folder made and tried, and its version looked at: before hours of work, not after.

    Raises:
        InvalidConfigError: nothing can be written there, or nothing may be.
    """
    real = _make_folder(path)
    with writing(f"the store {path}", otherwise=OTHER_PLACE):
        read_document(real)
    return real


def _text(path: Path, document: dict[str, Any]) -> str:
    text = json.dumps(document, indent=1) + "\n"
    if len(text) > LARGEST_FILE:
        msg = f"the store {path} would have {len(text)} bytes, more than the {LARGEST_FILE} that are read. Start another: {OTHER_PLACE}."
        raise InvalidConfigError(msg)
    return text


def update(path: Path, change: Change, *, warn: Callable[[str], None]) -> None:
    """Replace the store's entries in one write, under the lock that every writer takes.

    Args:
        path: the store.
        change: from the entries as they stand in the file, understood or not, to those that shall stand there. What it raises
            leaves the store as it was.
        warn: told, in a line, about a corrupt file that had to be set aside.

    Raises:
        InvalidConfigError: nothing can or may be written there.
        WriteError: the system refused; the old store is as it was.
    """
    real = _make_folder(path)
    with writing(f"the store {path}", otherwise=OTHER_PLACE), locked(real.with_name(f"{real.name}.lock")):
        sweep(real)
        document, corrupt = read_document(real)
        entries = change(list(document["entries"]))
        if corrupt is None and entries == document["entries"]:
            return
        text = _text(path, {**document, "entries": entries})
        if corrupt is not None:
            warn(f"{path} {corrupt}: it was moved to {set_aside(real, 'corrupt')} and a new store begun")
        write_atomically(real, text)


def _raw(entry: Entry) -> dict[str, Any]:
    """The entry as it is written.

    Raises:
        InvalidConfigError: its evidence cannot stand in JSON.
    """
    raw = entry.as_json()
    problem = f"nested in more than {DEEPEST_ENTRY} levels" if too_deep(raw, deepest=DEEPEST_ENTRY) else None
    try:
        json.dumps(raw, allow_nan=False)
    except (TypeError, ValueError) as error:
        problem = str(error)
    if problem is not None:
        msg = f"the entry of band {entry.key.band} on {entry.key.device!r} cannot be stored: its evidence is no plain JSON ({problem})"
        raise InvalidConfigError(msg)
    return raw


def save_all(path: Path, entries: Sequence[Entry], *, warn: Callable[[str], None]) -> None:
    """Put entries into the store in one write, each in place of the one with the same key and kind; every other one stays as it is.

    Args:
        path: the store. entries: with JSON-ready evidence. warn: as in `update`.

    Raises:
        InvalidConfigError: as in `update`, or an entry that is not JSON-ready.
        WriteError: as in `update`.
    """
    new = {identity_of(entry): _raw(entry) for entry in entries}
    update(path, lambda old: [*(raw for raw in old if identity_of_raw(raw) not in new), *new.values()], warn=warn)


def save(path: Path, entry: Entry, *, warn: Callable[[str], None]) -> None:
    """`save_all` of one entry."""
    save_all(path, [entry], warn=warn)


def find(path: Path, key: Key, kind: str = "measured") -> Entry | None:
    """The stored entry with exactly this key, if any."""
    entries = read_store("user store", path).entries
    return next((entry for entry in reversed(entries) if entry.key == key and entry.kind == kind), None)
