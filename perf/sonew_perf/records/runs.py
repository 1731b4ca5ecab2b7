"""The store's folder: where it lies, a file per run, and the list of runs that are kept for good."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import platformdirs

from sonew.documents import parse_json, read_regular_file
from sonew.errors import InvalidConfigError
from sonew_perf.errors import RecordError
from sonew_perf.records import machines
from sonew_perf.records.checks import LONGEST_NAME, SAFE_ID, Fields, expect_text, shown
from sonew_perf.records.files import SCHEMA_VERSION, Entry, document, holding, write_text
from sonew_perf.records.model import Run

BASELINES: Final = Path(__file__).resolve().parents[2] / "baselines"
RUNS, COMPARES, PINS, TICKETS = "runs", "compares", "pins.json", "tickets.json"
FIELDS: Final = ("id", "date", "label", "command", "commit", "commit_date", "branch", "modified", "diff", "load", "seconds")
FIX: Final = "Pass --store or set SONEW_PERF_STORE to a folder that can be written."


def store_folder() -> Path:
    """The user's folder of runs (SONEW_PERF_STORE overrides)."""
    override = os.environ.get("SONEW_PERF_STORE")
    return Path(override) if override else Path(platformdirs.user_data_dir("sonew")) / "perf"


def new_run_id(now: datetime) -> str:
    """An id that sorts by date; eight random digits keep runs of the same second apart."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def record_text(run: Run, entries: Sequence[Entry], *, named: bool = True) -> str:
    """A run's record as JSON text; without its id where a file's name decides what it is called."""
    about = {name: getattr(run, name) for name in FIELDS if named or name != "id"}
    return document(entries, about | {"machine": machines.describe(run.machine)})


def write_run(folder: Path, run: Run, entries: Sequence[Entry]) -> Path:
    """Add a run to a store, whole or not at all.

    Args:
        folder: the store's. run: its `path`, `origin` and `pinned` are no part of the file. entries: of the record.

    Raises:
        RecordError: there is a run with this id, its id is no file name, or the place cannot be written.
    """
    if SAFE_ID.fullmatch(run.id) is None:
        msg = f"run id {shown(run.id)} is not allowed: it must be letters, digits, '.', '_' and '-'. Use new_run_id()."
        raise RecordError(msg)
    path = folder / RUNS / f"{run.id}.json"
    if os.path.lexists(path):
        msg = f"{path} exists, and a run is never written over. Use new_run_id()."
        raise RecordError(msg)
    return write_text(path, record_text(run, entries), fix=FIX)


@dataclass(frozen=True, slots=True)
class Pin:
    """A run that is never dropped: its id, why, and since when (ISO 8601)."""

    run: str
    note: str = ""
    date: str = ""


def changing(folder: Path) -> AbstractContextManager[None]:
    """Hold the store's pins: nobody else pins, unpins or drops runs meanwhile.

    Raises:
        RecordError: the folder cannot be written.
    """
    return holding(folder / "pins.lock", fix=FIX)


def read_pins(folder: Path) -> dict[str, Pin]:
    """The pins of a store by run id, none where there is no file.

    Raises:
        RecordError: the file is not a list of pins.
    """
    path = folder / PINS
    try:
        fields = Fields.of(PINS, parse_json(read_regular_file(path), strict=True))
        fields.expect_version(SCHEMA_VERSION)
        pins = [Pin(entry.name("run"), entry.text("note", ""), entry.date("date", "")) for entry in fields.objects("entries")]
    except FileNotFoundError:
        return {}
    except (OSError, InvalidConfigError, RecordError) as error:
        msg = f"{path} is no list of pinned runs: {error}. Mend it or move it away."
        raise RecordError(msg) from error
    return {pin.run: pin for pin in pins}


def write_pins(folder: Path, pins: Mapping[str, Pin]) -> None:
    """Replace the pins of a store in one step.

    Raises:
        RecordError: a pin could not be read again, or the place cannot be written.
    """
    for pin in pins.values():
        expect_text("run id", pin.run, longest=LONGEST_NAME)
        expect_text("note", pin.note)
    entries: list[dict[str, Any]] = [{"run": pin.run, "note": pin.note, "date": pin.date} for pin in pins.values()]
    write_text(folder / PINS, json.dumps({"schema_version": SCHEMA_VERSION, "entries": entries}, indent=1) + "\n", fix=FIX)
