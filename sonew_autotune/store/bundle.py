"""Bundles: entries in one JSON document that travels between machines, with where they were made and a digest over them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sonew.backends.native_build import cpu_model
from sonew.documents import LARGEST_FILE, DocumentError, parse_json, read_regular_file
from sonew.errors import InvalidConfigError
from sonew.tuned import SCHEMA_VERSION, Entry, is_known_schema, parse_entry
from sonew_autotune.store.audit import parse_date
from sonew_autotune.store.evidence import now, versions
from sonew_autotune.store.files import prepare_folder, write_atomically, writing

KIND: Final = "sonew-autotune bundle"
FIELDS: Final = ("schema_version", "kind", "made_by", "machine", "date", "sha256", "entries")
OTHER_FILE: Final = "pass another FILE"


class BundleError(InvalidConfigError):
    """A file that is no bundle, or a damaged one; nothing of it was used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle as read, digest verified. `sha256`: of the entries, their name in evidence. `date`: when it was made, as it says."""

    sha256: str
    date: str
    entries: tuple[Entry, ...]


def digest(raw_entries: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 in hexadecimal of the entries as canonical JSON: names sorted, no spaces, ASCII."""
    text = json.dumps(list(raw_entries), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def make_bundle(entries: Sequence[Entry]) -> dict[str, Any]:
    """The document of a bundle. It names versions and kinds of hardware, no user and no host."""
    raw = [entry.as_json() for entry in entries]
    machine = {"system": platform.system(), "machine": platform.machine(), "cpu": cpu_model()}
    head = {"schema_version": SCHEMA_VERSION, "kind": KIND, "made_by": versions(), "machine": machine, "date": now()}
    return {**head, "sha256": digest(raw), "entries": raw}


def write_bundle(path: Path, entries: Sequence[Entry], *, overwrite: bool = False) -> dict[str, Any]:
    """Write a bundle and return its document.

    Args:
        path: a file that does not exist yet. entries: what goes into it. overwrite: it may exist, as a regular file.

    Raises:
        InvalidConfigError: something is there already, or the folder cannot be written.
        WriteError: the system refused; what was there before is there still.
    """
    if os.path.lexists(path) and not (overwrite and path.is_file()):
        fix = "Pass --overwrite to replace it, or another FILE" if path.is_file() else "Pass the path of a file"
        msg = f"{path} exists{'' if path.is_file() else ' and is no regular file'}: nothing was written. {fix}."
        raise InvalidConfigError(msg)
    document = make_bundle(entries)
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    if len(text) > LARGEST_FILE:
        msg = f"the bundle would have {len(text)} bytes, more than the {LARGEST_FILE} that are read. Export fewer: pass --band or --device."
        raise InvalidConfigError(msg)
    prepare_folder(path.resolve().parent, subject=f"the bundle {path}", fix=f"{OTHER_FILE.capitalize()}.")
    with writing(f"the bundle {path}", otherwise=OTHER_FILE):
        write_atomically(path, text)
    return document


def _refuse(path: Path, problem: str, fix: str = "Export it again (sonew-autotune export), and copy the file whole.") -> BundleError:
    return BundleError(f"{path} {problem}: nothing was imported. {fix}")


def _parse_entries(path: Path, raw_entries: Sequence[Any]) -> tuple[Entry, ...]:
    entries = []
    for index, raw in enumerate(raw_entries):
        try:
            entries.append(parse_entry(raw))
        except InvalidConfigError as error:
            problem = f"holds an entry that is none (entry {index}: {str(error)[:200]})"
            raise _refuse(path, problem) from error
        if set(raw) != {"key", "kind", "config", "evidence"}:
            raise _refuse(path, f"holds an entry with unknown fields (entry {index}: {sorted(raw)!r:.200})")
    return tuple(entries)


def read_bundle(path: Path) -> Bundle:
    """Read and verify a bundle; what its entries claim is judged by whoever takes them in (`merge.import_entries`).

    Raises:
        BundleError: not there, no bundle, another version's, or damaged.
        UnreadableFileError: no regular file, or too large a one.
    """
    try:
        document = parse_json(read_regular_file(path), strict=True, halves=True)
    except OSError as error:
        raise _refuse(path, f"cannot be read ({error.strerror})", "Pass the path of a bundle.") from error
    except DocumentError as error:
        raise _refuse(path, f"is not readable as JSON ({error})") from error
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise _refuse(path, f"is not a bundle (expected a JSON object with kind {KIND!r})")
    if not is_known_schema(document):
        found = repr(document.get("schema_version"))[:40]
        fix = "Export it with this version of sonew, or import it with the one that wrote it."
        raise _refuse(path, f"has schema_version {found}, this version reads {SCHEMA_VERSION}", fix)
    if set(document) != set(FIELDS) or not isinstance(document["entries"], list):
        raise _refuse(path, f"has the fields {sorted(document)!r:.200}, expected {sorted(FIELDS)} with a list of entries")
    if parse_date(document["date"]) is None:
        raise _refuse(path, f"has the date {document['date']!r:.80}, expected one such as 2026-11-27T12:00:00Z")
    entries = _parse_entries(path, document["entries"])
    found = digest(document["entries"])
    if document["sha256"] != found:
        raise _refuse(path, f"is damaged or was edited (its entries have sha256 {found}, it says {document['sha256']!r:.80})")
    return Bundle(sha256=found, date=document["date"], entries=entries)
