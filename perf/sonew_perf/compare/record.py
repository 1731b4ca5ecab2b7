"""A comparison as a record: what was compared, where and how, each case with its verdict. The dashboard reads what stands here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

from sonew_perf.compare.comparison import Judged, Settings, noise_floor
from sonew_perf.compare.sides import Side
from sonew_perf.entries import digits
from sonew_perf.records import machines
from sonew_perf.records.files import SCHEMA_VERSION, json_text, write_text
from sonew_perf.records.model import Machine
from sonew_perf.records.runs import COMPARES, new_run_id

AGAINST_OTHER: Final = "A/B"
AGAINST_ITSELF: Final = "A/A"
FIX: Final = "Choose another place with --output, --markdown or --store."


def make_record(
    judged: Sequence[Judged],
    *,
    base: Side,
    head: Side,
    settings: Settings,
    itself: bool,
    slowdown: float,
    machine: Machine,
    load: float,
    seconds: float,
    command: str,
) -> dict[str, Any]:
    """The record.

    Args:
        judged: every case. base, head: the sides. settings: as measured. itself: whether both sides are the same on purpose.
        slowdown: of the head, on purpose. machine: where. load: average before. seconds: it took. command: that does it again.
    """
    now = datetime.now(UTC)
    title = f"{head.title} with itself" if itself else f"{head.title} against {base.title}"
    planted = f", slowed down by {100 * slowdown:g} % on purpose" if slowdown else ""
    about = {
        "id": new_run_id(now),
        "date": now.isoformat(timespec="seconds"),
        "title": title + planted,
        "mode": AGAINST_ITSELF if itself else AGAINST_OTHER,
        "base": base.described(),
        "head": head.described(),
        "machine": machines.describe(machine),
        "load": load,
        "launches": settings.launches,
        "rounds": settings.rounds,
        "seconds": round(seconds, 1),
        "tolerance": settings.tolerance,
        "fail_on": settings.fail_on,
        "not_interleaved": not settings.turns,
        "planted_slowdown": slowdown,
        "noise_floor": noise_floor(judged) if itself and not slowdown else None,
        "command": command,
    }
    return {"schema_version": SCHEMA_VERSION, "comparison": about, "entries": [entry(each) for each in judged]}


def entry(judged: Judged) -> dict[str, Any]:
    """A case as the record says it."""
    found, rounds = judged.found, [pair for launch in judged.timed.rounds for pair in launch]
    numbers: dict[str, Any] = dict.fromkeys(("ratio", "low", "high", "p", "p_adjusted", "detectable", "base_ms", "head_ms"))
    if found is not None and judged.detectable is not None:
        values = {"ratio": found.ratio, "low": found.low, "high": found.high, "p": found.p, "p_adjusted": judged.p_adjusted}
        medians = {"base_ms": median(base for base, _ in rounds), "head_ms": median(head for _, head in rounds)}
        numbers |= {name: digits(value) for name, value in {**values, **medians, "detectable": judged.detectable}.items()}
    return {
        "case": judged.timed.case.name,
        **judged.timed.case.identity(),
        "verdict": str(judged.verdict),
        **numbers,
        "launches": [len(launch) for launch in judged.timed.rounds],
        "ratios": [digits(head / base) for base, head in rounds],
        "confirmed": judged.confirmed,
        "reason": judged.timed.reason,
        "plans": [facts.get("plans", []) for facts in judged.timed.facts],
    }


def document(record: Mapping[str, Any]) -> str:
    """As JSON text, an entry per line."""
    lines = ",\n".join(map(json_text, record["entries"]))
    about = json_text(record["comparison"])
    return f'{{"schema_version": {record["schema_version"]}, "comparison": {about}, "entries": [\n{lines}\n]}}\n'


def write_record(path: Path, record: Mapping[str, Any]) -> Path:
    """Write the record to a file of its own, as `files.write_text`."""
    return write_text(path, document(record), fix=FIX)


def store_record(folder: Path, record: Mapping[str, Any]) -> Path:
    """Add it to a store, as `files.write_text`."""
    return write_record(folder / COMPARES / f"{record['comparison']['id']}.json", record)
