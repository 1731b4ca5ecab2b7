"""Where a run is kept: a file of the store, or a file that the user names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sonew_perf.records.files import OUTPUT_FIX, Entry, write_text
from sonew_perf.records.model import Run
from sonew_perf.records.runs import record_text, store_folder, write_run


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
        written.append(write_text(place.output, record_text(run, entries, named=False), fix=OUTPUT_FIX))
    if place.stores:
        written.append(write_run(place.folder, run, entries))
    return written
