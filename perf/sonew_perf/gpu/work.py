"""The work file: a line per finished unit, so that a stopped run goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sonew_autotune.store.journal import cut_torn_line, locked
from sonew_perf.errors import RecordError
from sonew_perf.gpu.outcome import Outcome

SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Finished:
    """A unit that is done, and when."""

    outcome: Outcome
    seconds: float
    date: str


class WorkFile:
    """Finished units of runs under one key.

    Args:
        folder: where work files lie. key: what the results hold for (`identity.key_of`).
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.path = folder / f"{key}.jsonl"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs away: their times would disturb each other's.

        Raises:
            LockedError: another run holds it.
            RecordError: the folder cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"{self.path.parent} cannot be made: {error}. Set SONEW_STATE_DIR to a folder that can be written."
            raise RecordError(msg) from error
        with locked(self.path.with_suffix(".lock"), wait=False):
            cut_torn_line(self.path)
            yield

    def read(self) -> dict[str, Finished]:
        """Finished units by name; a later line replaces an earlier one.

        Raises:
            RecordError: a line is not one of ours.
        """
        if not self.path.exists():
            return {}
        found: dict[str, Finished] = {}
        for number, line in enumerate(self.path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                entry: dict[str, Any] = json.loads(line)
                version = entry["schema_version"]
                found[entry["unit"]] = Finished(Outcome(**entry["outcome"]), entry["seconds"], entry["date"])
            except (ValueError, KeyError, TypeError) as error:
                msg = f"{self.path}, line {number} is no line of a work file ({error!r}). Pass --fresh to begin anew."
                raise RecordError(msg) from error
            if version != SCHEMA_VERSION:
                msg = f"{self.path}, line {number} has schema_version {version!r}, expected {SCHEMA_VERSION}. Pass --fresh to begin anew."
                raise RecordError(msg)
        return found

    def append(self, unit: str, outcome: Outcome, seconds: float) -> Finished:
        """Add a line and wait until it is on disk; a kill before that loses this unit only."""
        date = datetime.now(UTC).isoformat(timespec="seconds")
        entry = {
            "schema_version": SCHEMA_VERSION,
            "unit": unit,
            "outcome": asdict(outcome),
            "seconds": round(seconds, 1),
            "date": date,
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return Finished(outcome, round(seconds, 1), date)

    def forget(self) -> None:
        """Drop everything."""
        self.path.unlink(missing_ok=True)
