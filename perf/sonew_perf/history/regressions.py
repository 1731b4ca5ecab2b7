"""What became slower, as a list of tickets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from sonew_perf.history.changes import Analysis, Change, analyse, done_points
from sonew_perf.history.tickets import State, Ticket, ticket_id
from sonew_perf.records.model import Point, Run, Series

IN_MS: Final[Mapping[str, float]] = {"ms": 1.0, "s": 1e3}
NEARBY: Final = 1  # points: as a history grows, a neighbour may turn out to be the first run of a level; less than half of a shortest level


class Records(Protocol):
    """The part of `records.index.Index` that is read here."""

    def runs(self) -> list[Run]:
        """By date."""

    def series(self) -> list[Series]:
        """All of them."""

    def summary_points(self, series_id: str | None = None) -> list[Point]:
        """Samples left out; of all series where none is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """A change to the slower, and what was said about it.

    Attributes:
        id: of its ticket. series: id. title, kernel, machine: of the series.
        ratio: new level over old. ms: what it costs, None where the series is no time.
        against: the peer whose ratios were judged, "" for the series' own numbers.
        date: of the first slower run, ISO 8601. last_good, first_bad: run ids. good_commit, bad_commit, bisect: as in `changes.Change`.
        recovered: id of the first run of a later level that is as fast as before; "" while there is none.
        state, note, author: of the ticket. since: its date, or that of the first slower run.
    """

    id: str
    series: str
    title: str
    kernel: str
    machine: str
    direction: str
    ratio: float
    ms: float | None
    against: str
    date: str
    last_good: str
    first_bad: str
    good_commit: str
    bad_commit: str
    bisect: str
    recovered: str
    state: State
    note: str
    author: str
    since: str

    @property
    def unsettled(self) -> bool:
        """Whether somebody should look at it."""
        return self.state == "open" and not self.recovered


@dataclass(frozen=True, slots=True)
class History:
    """One series, its points with a number by date, and what they say."""

    series: Series
    points: Sequence[Point]
    analysis: Analysis


def histories(index: Records) -> list[History]:
    """Every series of a store, analysed."""
    runs = {run.id: run for run in index.runs()}
    points: dict[str, list[Point]] = defaultdict(list)
    for point in index.summary_points():
        points[point.series].append(point)
    return [History(series, done_points(points[series.id], runs), analyse(points[series.id], runs, series)) for series in index.series()]


def _recovered(analysis: Analysis, place: int) -> str:
    """The first run of a later level that is no longer slower than before change number `place`, the series' threshold allowed."""
    ratio = 1.0
    for change in analysis.changes[place:]:
        ratio *= change.ratio
        if ratio <= 1 + analysis.threshold and change.direction == "faster":
            return change.first_bad
    return ""


def _ticket(history: History, change: Change, tickets: Mapping[str, Ticket]) -> Ticket:
    """What was said about this change, also when it was found at a neighbouring run then; of two the newest."""
    near = history.points[max(change.index - NEARBY, 0) : change.index + NEARBY + 1]
    names = [ticket_id(history.series.id, run) for run in (change.first_bad, *(point.run for point in near))]
    found = [tickets[name] for name in names if name in tickets]
    return max(found, key=lambda ticket: ticket.date, default=Ticket(id=names[0]))


def regressions_of(history: History, runs: Mapping[str, Run], tickets: Mapping[str, Ticket]) -> list[Regression]:
    """The changes of one series to the slower."""
    made = []
    series, analysis = history.series, history.analysis
    for place, change in enumerate(analysis.changes):
        if change.direction != "slower":
            continue
        ticket, scale, date = _ticket(history, change, tickets), IN_MS.get(series.unit), runs[change.first_bad].date
        made.append(
            Regression(
                id=ticket.id,
                series=series.id,
                title=series.title,
                kernel=series.kernel,
                machine=series.machine,
                direction=change.direction,
                ratio=change.ratio,
                # from the ratio: the levels themselves also hold what the machine did meanwhile
                ms=analysis.levels[place].level * (change.ratio - 1) * scale if scale else None,
                against=analysis.against,
                date=date,
                last_good=change.last_good,
                first_bad=change.first_bad,
                good_commit=change.good_commit,
                bad_commit=change.bad_commit,
                bisect=change.bisect,
                recovered=_recovered(analysis, place),
                state=ticket.state,
                note=ticket.note,
                author=ticket.author,
                since=ticket.date or date,
            )
        )
    return made


def newest_first(regressions: Sequence[Regression]) -> list[Regression]:
    """By the date of the first slower run."""
    return sorted(regressions, key=lambda regression: (regression.date, regression.id), reverse=True)


def find_regressions(index: Records, tickets: Mapping[str, Ticket]) -> list[Regression]:
    """Every change to the slower in a store, the newest first.

    Args:
        index: the store's. tickets: by id, as `tickets.read_tickets` gives them.
    """
    runs = {run.id: run for run in index.runs()}
    return newest_first([regression for history in histories(index) for regression in regressions_of(history, runs, tickets)])
