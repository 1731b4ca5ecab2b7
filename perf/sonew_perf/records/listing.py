"""The files of a store, and whether anything about them has changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sonew_perf.records.runs import BASELINES, COMPARES, PINS, RUNS, TICKETS

ENDING: Final = ".json"


@dataclass(frozen=True, slots=True, order=True)
class Listed:
    """A record file: where it lies, and what changes when it is written anew."""

    path: str
    size: int
    mtime_ns: int
    inode: int
    origin: str


def _files(folder: Path | None, origin: str) -> Iterator[Listed]:
    """The record files of a folder, none where there is no folder; unfinished files of writers have other names."""
    if folder is None or not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(ENDING) and not entry.name.startswith("."):
                try:
                    status = entry.stat()
                except OSError:  # a link to nothing: reading it will say so
                    yield Listed(entry.path, -1, 0, 0, origin)
                else:
                    yield Listed(entry.path, status.st_size, status.st_mtime_ns, status.st_ino, origin)


def list_records(folder: Path, baselines: Path | None) -> list[Listed]:
    """Every record file of the store and of the committed ones, by path.

    Raises:
        OSError: a folder cannot be listed.
    """
    committed = None if baselines is None else baselines.absolute()
    return sorted([*_files(folder.absolute() / RUNS, "store"), *_files(committed, "baseline")])


def list_comparisons(folder: Path, baselines: Path | None) -> list[Listed]:
    """Every comparison's file: the committed ones by path, then those of the store.

    Raises:
        OSError: a folder cannot be listed.
    """
    committed = None if baselines is None else baselines.absolute() / COMPARES
    return [*sorted(_files(committed, "baseline")), *sorted(_files(folder.absolute() / COMPARES, "store"))]


def revision_of(folder: Path, baselines: Path | None = BASELINES) -> str:
    """A short text that is another one as soon as any run, pin, ticket or comparison is."""
    digest = hashlib.sha256()
    for listed in [*list_records(folder, baselines), *list_comparisons(folder, baselines)]:
        digest.update(repr(listed).encode())
    for name in (PINS, TICKETS):
        try:
            status = (folder / name).stat()
        except OSError:
            continue
        digest.update(repr((name, status.st_size, status.st_mtime_ns, status.st_ino)).encode())
    return digest.hexdigest()[:16]
