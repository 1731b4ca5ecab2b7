"""Comparisons of two commits or configurations: the list, and the verdicts of one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sonew_perf.dashboard.content import Content, Row
from sonew_perf.dashboard.views.plain import evenly, plain
from sonew_perf.records.model import Series

VERDICTS: Final = ("SLOWER", "FASTER", "SAME", "UNSURE", "NO-DATA")
MOST_RATIOS: Final = 200
FIELDS: Final = ("kernel", "framework", "workload", "elements", "dtype", "band", "variant")


def counts(record: Row) -> dict[str, int]:
    """How often each verdict was given."""
    found = Counter(entry["verdict"] for entry in record["entries"])
    return {verdict: found[verdict] for verdict in VERDICTS}


def machine_id(content: Content, machine: Mapping[str, Any]) -> str:
    """The id of a comparison's machine among those of the runs, "" where none fits."""
    if machine.get("id") in content.machines:
        return str(machine["id"])
    wanted = tuple(machine.get(name) for name in ("device", "type", "threads"))
    return next((one.id for one in content.machines.values() if (one.device, one.type, one.threads) == wanted), "")


def row(content: Content, record: Row) -> Row:
    """A comparison as the list shows it."""
    said = record["comparison"]
    return {
        "id": said["id"],
        "title": said["title"],
        "date": said["date"],
        "mode": said["mode"],
        "counts": counts(record),
        "machine": machine_id(content, said["machine"]),
        "base": said["base"]["spec"],
        "head": said["head"]["spec"],
    }


def comparisons(content: Content) -> list[Row]:
    """The view `comparisons`, newest first."""
    return [row(content, record) for record in reversed(content.comparisons)]


def one_comparison(content: Content, record: Row) -> Row:
    """The view `comparisons/<id>`: the record with each entry's series and few ratios."""
    here = machine_id(content, record["comparison"]["machine"])
    known = _by_fields(content, here)
    entries = [
        {**plain(entry), "ratios": plain(evenly(entry["ratios"], MOST_RATIOS)), "series": _series_of(entry, known)}
        for entry in record["entries"]
    ]
    return {**plain(record["comparison"]), "machine_id": here, "counts": counts(record), "entries": entries}


def _by_fields(content: Content, machine: str) -> dict[tuple[Any, ...], list[Series]]:
    """The timed series of a machine by what a comparison says of its cases."""
    found: dict[tuple[Any, ...], list[Series]] = defaultdict(list)
    for series in content.series.values():
        if series.machine == machine and series.measure == "time":
            found[tuple(getattr(series, name) for name in FIELDS)].append(series)
    return found


def _series_of(entry: Row, known: Mapping[tuple[Any, ...], Sequence[Series]]) -> str | None:
    """The series of the same case, else SONew's own; a comparison names its cases in its own words."""
    same = known.get(tuple(entry[name] for name in FIELDS), ())
    named = [one for one in same if one.case == entry["case"]] or [one for one in same if one.case.startswith("SONew")]
    return named[0].id if named else None
