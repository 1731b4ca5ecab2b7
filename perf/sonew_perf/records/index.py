"""The index of a store: every run, series and point by a question each. It is made from the record files and may be deleted at will."""

from __future__ import annotations

import gc
import json
import os
import sqlite3
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from sonew_perf.errors import RecordError
from sonew_perf.records.checks import escaped
from sonew_perf.records.database import Database
from sonew_perf.records.listing import list_records, revision_of
from sonew_perf.records.model import Machine, Point, Problem, Run, Series
from sonew_perf.records.reading import read_record
from sonew_perf.records.runs import BASELINES, PINS, read_pins
from sonew_perf.records.updating import update

T = TypeVar("T")
COLUMNS: Final = "status, points.reason, median, q1, q3, against"
SHOWN: Final = "points JOIN files ON files.key = points.file AND files.shown"
WITH_FACTS: Final = f"{SHOWN} JOIN facts ON facts.key = points.facts JOIN series ON series.key = points.series"


class Parsed(Mapping[str, Any]):
    """An object that is kept as JSON text until it is looked into: of a hundred thousand points few ever are."""

    __slots__ = ("_text", "_values")

    def __init__(self, text: str) -> None:
        self._text = text
        self._values: dict[str, Any] | None = None

    def _known(self) -> dict[str, Any]:
        if self._values is None:
            self._values = json.loads(self._text)
        return self._values

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401  # whatever the record says
        return self._known()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())

    def __repr__(self) -> str:
        return repr(self._known())

    def __reduce__(self) -> tuple[type[Parsed], tuple[str]]:
        return Parsed, (self._text,)


def _point(series: str, run: str, row: Sequence[Any], facts: Mapping[str, Any], samples: tuple[float, ...] = ()) -> Point:
    """A point from `COLUMNS`."""
    status, reason, median, q1, q3, against = row
    return Point(
        series=series,
        run=run,
        status=status,
        reason=reason,
        samples=samples,
        median=median,
        q1=q1,
        q3=q3,
        against=Parsed(against),
        facts=facts,
    )


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Inside, no garbage is looked for: among a hundred thousand new points there is none, and looking takes a quarter of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_without_collecting()
def _read_all(database: sqlite3.Connection) -> list[Point]:
    """Every point without its samples. The tables are joined here: a hundred thousand rows take half a second this way."""
    runs = dict(database.execute("SELECT key, run FROM files WHERE shown ORDER BY date, run").fetchall())
    names = dict(database.execute("SELECT key, id FROM series").fetchall())
    facts = {key: Parsed(text) for key, text in database.execute("SELECT key, body FROM facts")}
    by_series: dict[int, list[tuple[Any, ...]]] = {key: [] for key in names}
    for row in database.execute(f"SELECT series, file, facts, {COLUMNS} FROM points").fetchall():  # noqa: S608  # a constant
        if row[1] in runs:
            by_series[row[0]].append(row)
    order = {key: place for place, key in enumerate(runs)}
    return [
        _point(names[key], runs[row[1]], row[3:], facts[row[2]])
        for key, rows in by_series.items()
        for row in sorted(rows, key=lambda row: order[row[1]])
    ]


class Index:
    """Answers from a store's files.

    Made by `open` or `rebuild`; an answer is of the moment at which the index was last brought up to date. Threads may share it.

    Attributes:
        revision: another text whenever a run, a pin, a ticket or a comparison has changed.
    """

    def __init__(self, folder: Path, baselines: Path | None) -> None:
        self._folder, self._baselines = folder, baselines
        self._database = Database(folder)
        self._seen: sqlite3.Connection | None = None
        self.revision = ""

    @classmethod
    def open(cls, folder: Path, baselines: Path | None = BASELINES) -> Index:
        """The index of a store, brought up to date with its files.

        Args:
            folder: the store's; without one there are only the committed records. baselines: folder of these.

        Raises:
            RecordError: the folder cannot be read, or another process has been writing the index all the time.
        """
        index = cls(folder, baselines)
        index.refresh()
        return index

    @classmethod
    def rebuild(cls, folder: Path, baselines: Path | None = BASELINES) -> Index:
        """The same, from nothing: every file is read again."""
        index = cls(folder, baselines)
        index.refresh(anew=True)
        return index

    def refresh(self, *, anew: bool = False) -> None:
        """Bring it up to date, or make it anew. Raises as `open`."""
        self._seen = None
        try:
            self.revision = revision_of(self._folder, self._baselines)
        except OSError as error:
            msg = f"{self._folder} cannot be read: {error}. Pass --store or set SONEW_PERF_STORE to a folder that can be read."
            raise RecordError(msg) from error
        self._ask(lambda _database: None, anew=anew)

    def _ask(self, question: Callable[[sqlite3.Connection], T], *, anew: bool = False) -> T:
        """The answer, from tables that were brought up to date."""

        def answer(database: sqlite3.Connection) -> T:
            if database is not self._seen:
                update(database, list_records(self._folder, self._baselines), anew=anew)
                self._seen = database
            return question(database)

        return self._database.run(answer)

    def _rows(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return self._ask(lambda database: database.execute(statement, values).fetchall())

    def runs(self) -> list[Run]:
        """Every run, by date."""
        try:
            pins = set(read_pins(self._folder))
        except RecordError:  # `problems` says so
            pins = set()
        made = []
        for (body,) in self._rows("SELECT body FROM files WHERE shown ORDER BY date, run"):
            fields = json.loads(body)
            fields["machine"] = Machine(**fields["machine"])
            made.append(Run(**{**fields, "pinned": fields["pinned"] or fields["id"] in pins}))
        return made

    def series(self) -> list[Series]:
        """Every series that has a point, ordered by what it is."""
        known = f"SELECT 1 FROM {SHOWN} WHERE points.series = series.key"  # noqa: S608  # a constant
        rows = self._rows(f"SELECT body FROM series WHERE EXISTS ({known})")  # noqa: S608  # a constant
        made = [Series(**json.loads(body)) for (body,) in rows]
        return sorted(made, key=lambda series: (series.kernel, series.framework, series.workload, series.elements, series.case, series.id))

    def points(self, series_id: str) -> list[Point]:
        """The points of a series by the run's date, samples included; none of a series that is not known."""
        return [_point(series_id, run, row, Parsed(facts), tuple(array("d", samples))) for run, facts, samples, *row in self._of(series_id)]

    def summary_points(self, series_id: str | None = None) -> list[Point]:
        """The same without the samples, of every series where none is named: series by series."""
        if series_id is None:
            return self._ask(_read_all)
        return [_point(series_id, run, row, Parsed(facts)) for run, facts, _, *row in self._of(series_id)]

    def _of(self, series_id: str) -> list[tuple[Any, ...]]:
        """Rows of a series: run, facts, samples, columns."""
        return self._rows(
            f"SELECT files.run, facts.body, points.samples, {COLUMNS} FROM {WITH_FACTS}"  # noqa: S608  # constants
            " WHERE series.id = ? ORDER BY files.date, files.run",
            (series_id,),
        )

    def last_points(self) -> dict[str, Point]:
        """The newest point with a number of each series, by the series' id, samples left out."""
        return self._newest("status = 'done'")

    def newest_points(self) -> dict[str, Point]:
        """The newest point of each series, with a number or not, by the series' id, samples left out."""
        return self._newest("true")

    def _newest(self, wanted: str) -> dict[str, Point]:
        """The newest point of each series among those of a condition."""
        newest = f"SELECT points.rowid AS place, max(files.date || files.run) FROM {SHOWN} WHERE {wanted} GROUP BY series"  # noqa: S608  # constants
        rows = self._rows(
            f"SELECT series.id, files.run, facts.body, {COLUMNS} FROM {WITH_FACTS}"  # noqa: S608  # constants
            f" JOIN ({newest}) AS newest ON newest.place = points.rowid"
        )
        return {series: _point(series, run, row, Parsed(facts)) for series, run, facts, *row in rows}

    def problems(self) -> list[Problem]:
        """The files that are left out, and why, by path."""
        rows = self._rows("SELECT path, reason FROM files WHERE reason IS NOT NULL ORDER BY path")
        found = [Problem(escaped(os.fsdecode(path)), reason) for path, reason in rows]
        try:
            read_pins(self._folder)
        except RecordError as error:
            found.append(Problem(escaped(str(self._folder / PINS)), escaped(str(error))))
        return found

    def entry(self, run_id: str, series_id: str) -> dict[str, Any]:
        """What the run's record says of the series, whole; of training runs, which share a series, the first.

        Raises:
            RecordError: there is no such result.
        """
        for path, origin in self._rows("SELECT path, origin FROM files WHERE run = ? AND shown", (run_id,)):
            record = read_record(Path(os.fsdecode(path)), origin=origin)
            for result in record.results:
                if result.point.series == series_id:
                    return dict(record.entries[result.entry])
        msg = f"run {run_id!r} has no result of series {series_id!r}. `sonew-perf runs` lists the runs."
        raise RecordError(msg)

    def training_entries(self) -> list[dict[str, Any]]:
        """Whole entries of training runs, by the run's date, each with its run's id as "run"."""
        rows = self._rows(
            "SELECT files.run, training.body FROM training JOIN files ON files.key = training.file WHERE files.shown"
            " ORDER BY files.date, files.run, training.rowid"
        )
        return [{**json.loads(body), "run": run} for run, body in rows]

    def close(self) -> None:
        """Let go of the file; a later question opens it again."""
        self._database.close()
