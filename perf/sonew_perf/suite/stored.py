"""What earlier runs said of the same series and of the same sources."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from sonew_autotune.commands.text import printable
from sonew_perf.errors import RecordError
from sonew_perf.records.files import Entry
from sonew_perf.records.index import Index
from sonew_perf.records.machines import machine_of
from sonew_perf.records.model import Point, Run, Series
from sonew_perf.records.reading import parse_record
from sonew_perf.records.runs import BASELINES, record_text
from sonew_perf.suite.run import DONE, SKIPPED


@dataclass(frozen=True, slots=True)
class Stored:
    """Median ratios of one case to its peers, as they were stored last; `elsewhere`: on another machine, for want of this one."""

    ratios: Mapping[str, float] = field(default_factory=dict)
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Earlier:
    """The newest points with a number.

    Attributes:
        last: of every series, by its id.
        committed: of the committed records, by the type of the machine and by the series without its machine.
        problem: why there are none, or nothing.
    """

    last: Mapping[str, Point] = field(default_factory=dict)
    committed: Mapping[tuple[str, Series], Point] = field(default_factory=dict)
    problem: str = ""


def _newest(index: Index) -> Earlier:
    runs = {run.id: run for run in index.runs()}
    types = {run.machine.id: run.machine.type for run in runs.values()}
    series = {one.id: one for one in index.series()}
    last: dict[str, Point] = {}
    committed: dict[tuple[str, Series], Point] = {}
    for point in index.summary_points():  # those of a series by date
        if point.status != DONE:
            continue
        last[point.series], one, run = point, series[point.series], runs[point.run]
        if run.origin == "baseline" and one.machine in types:
            key = types[one.machine], replace(one, machine="")
            if key not in committed or runs[committed[key].run].date <= run.date:
                committed[key] = point
    return Earlier(last, committed)


def earlier_points(folder: Path, baselines: Path = BASELINES) -> Earlier:
    """What a store and the committed records know.

    A store that cannot be read is no reason to fail: what was measured now stands for itself.
    """
    with tempfile.TemporaryDirectory() as empty:  # stands for a store that is not there yet: reading makes none
        try:
            with closing(Index.open(folder if folder.is_dir() else Path(empty), baselines)) as index:
                return _newest(index)
        except RecordError as error:
            return Earlier(problem=f"no stored ratios: {printable(str(error))}")


def stored_ratios(run: Run, entries: Sequence[Entry], earlier: Earlier) -> list[Stored]:
    """For every entry of a run what was stored last for the same series, or else committed for it from another machine of the type.

    Raises:
        RecordError: the entries are not what a record says.
    """
    found = [Stored() for _ in entries]
    record = parse_record(record_text(run, entries).encode(), stem=run.id, path="", origin="store")
    for result in record.results:
        entry, series = entries[result.entry], result.series
        if series.measure != "time" or series.kernel != entry.get("kernel", series.kernel):
            continue
        own = earlier.last.get(series.id)
        point = own or earlier.committed.get((machine_of(entry["machine"]).type, replace(series, machine="")))
        if point is not None:
            ratios = {peer: ratio["median"] for peer, ratio in point.against.items() if "median" in ratio}
            found[result.entry] = Stored(ratios, elsewhere=own is None)
    return found


def outcomes(folder: Path, run: Run) -> dict[str, set[str]]:
    """What became of every group with the same sources on the same machine: its statuses in the newest run that did not just skip it.

    Nothing is known where the sources are unknown.

    Raises:
        RecordError: the store cannot be read.
    """
    if not run.commit or run.modified is None or not folder.is_dir():
        return {}
    with closing(Index.open(folder)) as index:
        own = run.commit, run.diff, run.machine.id
        same = {other.id: place for place, other in enumerate(index.runs()) if (other.commit, other.diff, other.machine.id) == own}
        points = [point for point in index.summary_points() if point.run in same]
    newest: dict[str, str] = {}
    found: dict[str, set[str]] = {}
    for point in sorted(points, key=lambda point: (point.status != SKIPPED, same[point.run])):
        name = str(point.facts.get("group", ""))
        if newest.get(name) != point.run:
            newest[name], found[name] = point.run, set()
        found[name].add(point.status)
    return found
