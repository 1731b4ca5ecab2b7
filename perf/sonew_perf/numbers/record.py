"""A committed record, as the writers of numbers see it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sonew_perf.errors import RecordError
from sonew_perf.records.files import Entry, read_entries

FOLDER: Final = Path("perf", "baselines")  # below the checkout's top


@dataclass(frozen=True, slots=True)
class Record:
    """Entries of a record, the link to it from the page that quotes it, and of a comparison what it says of itself."""

    name: str
    entries: Sequence[Entry]
    link: str
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def first(self) -> Entry:
        """The first entry: what all entries of a run share can be read there."""
        return self.entries[0]

    @property
    def rounds(self) -> int:
        """Samples per case."""
        return len(self.first["samples_ms"])

    def find(self, name: str) -> Entry | None:
        """The entry of a case, if it was measured."""
        return next((entry for entry in self.entries if entry.get("case") == name), None)

    def case(self, name: str) -> Entry:
        """The entry of a case.

        Raises:
            RecordError: there is none.
        """
        if (found := self.find(name)) is not None:
            return found
        cases = [entry.get("case") for entry in self.entries]
        msg = f"{self.name} has no case {name!r}; it has {cases}. Measure it, or quote another record."
        raise RecordError(msg)


def read(root: Path, name: str, page: Path) -> Record:
    """A committed record.

    Args:
        root: of the checkout. name: of the record's file. page: the file that quotes it.

    Raises:
        RecordError: there is no such record, or it is not one.
    """
    path = root / FOLDER / name
    entries = read_entries(path)
    if not entries:
        msg = f"{path} is missing or empty, but {page} quotes it. Commit the record, or drop what is quoted of it from sonew_perf/numbers."
        raise RecordError(msg)
    link = Path(os.path.relpath(path, page.parent)).as_posix()
    about = json.loads(path.read_text(encoding="utf-8")).get("comparison", {})
    return Record(name, entries, f"[record]({link})", about)
