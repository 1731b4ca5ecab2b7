"""Where a run is kept: a file of the store, or a file that the user names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sonew_autotune.store.files import write_atomically
from sonew_perf.errors import RecordError
from sonew_perf.records import machines
from sonew_perf.records.files import Entry, document
from sonew_perf.records.model import Run
from sonew_perf.records.runs import FIELDS, store_folder, write_run


def record_text(run: Run, entries: Sequence[Entry], *, named: bool = True) -> str:
    """The record as JSON text; without its id where a file's name decides what it is called."""
    about = {name: getattr(run, name) for name in FIELDS if named or name != "id"}
    return document(entries, about | {"machine": machines.describe(run.machine)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a run goes: into a store (None: the user's), or into a file instead, or into both where both are named, or nowhere."""

    output: Path | None = None
    store: Path | None = None
    no_store: bool = False

    @property
    def folder(self) -> Path:
        """The store, whether the run goes there or not: earlier runs lie in it."""
        return self.store or store_folder()

    @property
    def stores(self) -> bool:
        """Whether the run goes into the store."""
        return not self.no_store and (self.output is None or self.store is not None)


def keep(run: Run, entries: Sequence[Entry], place: Place) -> list[Path]:
    """Write a run to where it goes; the paths of what was written.

    Raises:
        RecordError: a place cannot be written.
    """
    written = []
    if place.output is not None:
        try:
            place.output.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place.output, record_text(run, entries, named=False))
        except OSError as error:
            msg = f"{place.output} cannot be written: {error}. Pass a writable --output."
            raise RecordError(msg) from error
        written.append(place.output)
    if place.stores:
        written.append(write_run(place.folder, run, entries))
    return written
