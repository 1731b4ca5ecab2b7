"""A store's points for other programs: CSV and JSON, and what asv and Apache Otava read."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any, Final

from sonew_perf.errors import RecordError
from sonew_perf.records.files import document
from sonew_perf.records.index import Index
from sonew_perf.records.model import Point, Run, Series

SERIES_FIELDS: Final = tuple(field.name for field in fields(Series))
COLUMNS: Final = ("run", "date", "commit", "series", *SERIES_FIELDS, "median", "q1", "q3", "n", "status", "reason")
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet would run


@dataclass(frozen=True, slots=True)
class Exported:
    """How many runs and points were written; the text, where it is no folder of files."""

    runs: int
    points: int
    text: str = ""


def chosen(index: Index, pattern: str = "") -> list[Series]:
    """The series whose title or id has the pattern in it: words, or with * and ? between them; capitals do not count."""
    wanted = f"*{pattern.lower()}*"
    return [series for series in index.series() if any(fnmatchcase(text.lower(), wanted) for text in (series.title, series.id))]


def safe_cell(value: object) -> str:
    """A cell of a table: nothing for None, and text that no spreadsheet takes for a formula. Numbers here are never negative."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def _table(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([safe_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _points(index: Index, pattern: str) -> Iterator[tuple[Run, Series, Point]]:
    runs = {run.id: run for run in index.runs()}
    for series in chosen(index, pattern):
        for point in index.points(series.id):
            yield runs[point.run], series, point


def _row(run: Run, series: Series, point: Point) -> dict[str, Any]:
    own = {name: getattr(series, name) for name in SERIES_FIELDS}
    numbers = {"median": point.median, "q1": point.q1, "q3": point.q3, "n": len(point.samples)}
    return {"run": run.id, "date": run.date, "commit": run.commit, "series": series.id, **own, **numbers} | {
        "status": point.status,
        "reason": point.reason,
    }


def _exported(rows: Sequence[Mapping[str, Any]], text: str) -> Exported:
    return Exported(len({row["run"] for row in rows}), len(rows), text)


def to_csv(index: Index, pattern: str = "") -> Exported:
    """A line per point: run, series, median and quartiles in the series' unit, number of samples, status."""
    rows = [_row(*found) for found in _points(index, pattern)]
    return _exported(rows, _table([COLUMNS, *(list(row.values()) for row in rows)]))


def to_json(index: Index, pattern: str = "") -> Exported:
    """The same with the samples, the ratios to the peers and what else is known."""
    rows = [
        _row(run, series, point) | {"samples": point.samples, "against": dict(point.against), "facts": dict(point.facts)}
        for run, series, point in _points(index, pattern)
    ]
    return _exported(rows, document(rows))


def to_otava(index: Index, pattern: str = "") -> Exported:
    """A line per run with a column per series, for Apache Otava's CSV importer: `time` in ISO 8601, attributes `run` and `commit`.

    Otava takes no gaps, so only runs that have all the series are in it.

    Raises:
        RecordError: no run has.
    """
    series = chosen(index, pattern)
    medians = {(point.run, point.series): point.median for one in series for point in index.summary_points(one.id)}
    names = ["time", "run", "commit", *(f"{one.title} [{one.unit}] {one.id}" for one in series)]
    rows: list[list[object]] = []
    for run in index.runs():
        values = [medians.get((run.id, one.id)) for one in series]
        if None not in values:
            rows.append([run.date, run.id, run.commit, *values])
    if not rows:
        msg = f"no run has all of the {len(series)} series, and Otava takes no gaps. Pass a --series that chooses fewer, such as its id."
        raise RecordError(msg)
    return Exported(len(rows), len(rows) * len(series), _table([names, *rows]))


FORMATS: Final[Mapping[str, Callable[[Index, str], Exported]]] = {"csv": to_csv, "json": to_json, "otava-csv": to_otava}
