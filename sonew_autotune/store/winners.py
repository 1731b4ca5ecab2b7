"""Writing winners to the user's store: whole files, one writer at a time, nothing of others lost. `sonew.tuned` reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sonew.tuned import SCHEMA_VERSION, Entry, Key, read_store
from sonew_autotune.store.files import prepare_folder, set_aside, write_atomically
from sonew_autotune.store.journal import locked


def _raw_entries(path: Path, warn: Callable[[str], None]) -> list[Any]:
    """The store's entries as they stand, understood or not; an unusable file is set aside with a word."""
    if not path.exists():
        return []
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        problem = None if isinstance(document, dict) and isinstance(document.get("entries"), list) else "is not a store"
    except (OSError, ValueError, RecursionError) as error:
        document, problem = {}, f"is not readable as JSON ({error})"
    if problem is not None:
        warn(f"{path} {problem}: it was moved to {set_aside(path, 'corrupt')} and a new store begun")
        return []
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        aside = set_aside(path, f"schema-{version}")
        warn(f"{path} has schema_version {version!r}, this version writes {SCHEMA_VERSION}: it was moved to {aside} and a new store begun")
        return []
    entries: list[Any] = document["entries"]
    return entries


def _same(raw: Any, entry: Entry) -> bool:  # noqa: ANN401  # whatever the file holds
    return isinstance(raw, dict) and raw.get("key") == asdict(entry.key) and raw.get("kind") == entry.kind


def prepare(path: Path) -> Path:
    """The store's real path, with its folder made and tried.

    Raises:
        InvalidConfigError: nothing can be written there.
    """
    real = path.resolve()
    fix = "Pass --store FILE or set SONEW_STORE to a file that can."
    prepare_folder(real.parent, subject=f"the store {path}", fix=fix)
    return real


def save(path: Path, entry: Entry, *, warn: Callable[[str], None]) -> None:
    """Put an entry into the store in place of the one with the same key and kind; every other entry stays as it is.

    Args:
        path: the store.
        entry: with JSON-ready evidence.
        warn: told, in a line, about a file that had to be set aside.
    """
    real = prepare(path)
    with locked(real.with_name(f"{real.name}.lock")):
        kept = [raw for raw in _raw_entries(real, warn) if not _same(raw, entry)]
        document = {"schema_version": SCHEMA_VERSION, "entries": [*kept, entry.as_json()]}
        write_atomically(real, json.dumps(document, indent=1, allow_nan=False) + "\n")


def find(path: Path, key: Key, kind: str = "measured") -> Entry | None:
    """The stored entry with exactly this key, if any."""
    entries = read_store("user store", path).entries
    return next((entry for entry in reversed(entries) if entry.key == key and entry.kind == kind), None)
