"""What the pages are made from: one state of the store, its parts read when they are first asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from sonew_perf.history.regressions import History
from sonew_perf.history.tickets import Ticket
from sonew_perf.records.model import Machine, Point, Problem, Run, Series

Json = Any  # a plain JSON value
Row = dict[str, Json]


class Records(Protocol):
    """The part of `records.index.Index` that the pages read."""

    def runs(self) -> list[Run]:
        """By date."""

    def series(self) -> list[Series]:
        """All of them."""

    def points(self, series_id: str) -> list[Point]:
        """By the run's date, samples included."""

    def summary_points(self, series_id: str | None = None) -> list[Point]:
        """Samples left out; of all series where none is named."""

    def last_points(self) -> dict[str, Point]:
        """The newest done point of each series."""

    def newest_points(self) -> dict[str, Point]:
        """The newest point of each series, done or not."""

    def training_entries(self) -> list[Row]:
        """Entries of training runs with their run's id."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """One state of the store.

    Attributes:
        index: runs, series and points. revision: another text whenever the store's files say something else.
        comparisons: records of `sonew-perf compare`, checked by `comparisons.read_comparisons`, oldest first.
        problems: files that cannot be used.
        analyses: what the history of a series says, for those series that were analysed so far. fresh: those of them whose newest points
            are in it; the others were analysed in an earlier state.
        tickets: what was said about regressions, by their id.
    """

    index: Records
    revision: str
    comparisons: Sequence[Row] = ()
    problems: Sequence[Problem] = ()
    analyses: dict[str, History] = field(default_factory=dict)
    fresh: set[str] = field(default_factory=set)
    tickets: Mapping[str, Ticket] = field(default_factory=dict)

    @cached_property
    def runs(self) -> list[Run]:
        """Oldest first."""
        return self.index.runs()

    @cached_property
    def run_by_id(self) -> dict[str, Run]:
        """Runs by id."""
        return {run.id: run for run in self.runs}

    @cached_property
    def series(self) -> dict[str, Series]:
        """Series by id, in the order of the index."""
        return {series.id: series for series in self.index.series()}

    @cached_property
    def machines(self) -> dict[str, Machine]:
        """Machines by id, as their newest run describes them."""
        return {run.machine.id: run.machine for run in self.runs}

    @cached_property
    def last(self) -> dict[str, Point]:
        """The newest done point of each series, samples left out."""
        return self.index.last_points()

    @cached_property
    def newest(self) -> dict[str, Point]:
        """The newest point of each series, done or not: what failed and was not measured again since is still broken."""
        return self.index.newest_points()

    @cached_property
    def history(self) -> dict[str, list[Point]]:
        """Every series' points, samples left out: the one read that grows with series times runs."""
        found: dict[str, list[Point]] = defaultdict(list)
        for point in self.index.summary_points():
            found[point.series].append(point)
        return dict(found)
