"""The history of one series: its levels, where they change, and between which runs.

A series is judged by the view of it that reaches least far: its own numbers, or its ratios to a peer of the same rounds. What that and
the constants of `segmentation` do, on recorded noise in which nothing changed: 60 runs a series, steps planted at random places and counted
as found to within one run; in percent, or "5 of 8" series. The constants were chosen on these recordings.

| noise | judged by | false alarms | 3 % found | 5 % | 10 % |
|---|---|---|---|---|---|
| loaded machine, runs of 7 samples (200 series) | own numbers | 36 | 4 | 6 | 8 |
| | the chosen view | 0 | 0 | 7 | 24 |
| loaded machine, runs of 9 samples (200 series) | own numbers | 65 | 7 | 7 | 8 |
| | the chosen view | 1 | 0 | 4 | 24 |
| quiet machine, 65536 elements | own numbers | 4 of 4 | 83 | 92 | 90 |
| | the chosen view | 0 of 4 | 95 | 98 | 100 |
| quiet machine, 2.8 and 4.2 million elements | own numbers | 5 of 8 | 13 | 45 | 80 |
| | the chosen view | 1 of 8 | 18 | 54 | 83 |
| independent, normal, 1 %, no peer (300 series) | own numbers | 0 | 96 | 100 | - |

The loaded machine: `tests/perf/history/recordings`. The quiet one: `tests/autotune/recordings/cpu-epyc2.json`, whose rounds, seconds apart,
are taken as runs of 20 samples. A machine has levels of its own, which last for minutes: by their own numbers most of these series
"changed". So a ratio is preferred where there is one. A step of 3 % is found where runs repeat to about 1 %; on a loaded machine it is not,
and the threshold says so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from sonew_perf.history import segmentation
from sonew_perf.history.bisecting import bisect_command, clean_commit
from sonew_perf.history.segmentation import Segment
from sonew_perf.records.model import Point, Run, Series

FEWEST: Final = 2 * segmentation.SHORTEST  # points; with fewer there is no room for two levels
OWN_MAY_BE_QUIETER: Final = 1.25  # times, and a ratio is judged all the same: what it cancels comes and goes
CONFIRMING: Final = 0.5  # of a change that another view must show


@dataclass(frozen=True, slots=True)
class Level:
    """Points in a row around one value.

    Attributes:
        first, last: places among the done points, both inclusive.
        level: median, in the series' unit. noise: relative, of what was judged.
    """

    first: int
    last: int
    level: float
    noise: float


@dataclass(frozen=True, slots=True)
class Change:
    """Where one level ends and the next begins.

    Attributes:
        index: of the first point behind it, among the done points. ratio: new level over old, of what was judged.
        last_good, first_bad: the runs on either side.
        good_commit, bad_commit: of the nearest runs inside the two levels whose commit is known and whose tree had no other changes; ""
            where there is none.
        bisect: command that finds the commit, "" where there is none to find (`bisect_command`).
    """

    index: int
    ratio: float
    last_good: str
    first_bad: str
    good_commit: str
    bad_commit: str
    bisect: str
    direction: Literal["slower", "faster"]


@dataclass(frozen=True, slots=True)
class Analysis:
    """What a history says.

    Attributes:
        levels, changes: in the order of the runs; a change lies between two levels.
        threshold: the smallest relative change that this series' noise lets be seen, whole levels against each other.
        judged: whether there was enough to judge. reason: why not.
        against: the peer whose ratios were judged, "" for the series' own numbers.
    """

    levels: tuple[Level, ...]
    changes: tuple[Change, ...]
    threshold: float
    judged: bool
    reason: str = ""
    against: str = ""


def done_points(points: Sequence[Point], runs: Mapping[str, Run]) -> list[Point]:
    """Points with a number, by their runs' date: what an analysis counts."""
    done = [point for point in points if point.status == "done" and point.median is not None and point.run in runs]
    return sorted(done, key=lambda point: runs[point.run].date)


def ratio_points(points: Sequence[Point], peer: str) -> list[Point]:
    """The points with the ratio to a peer of the same rounds as their number: what slows both down cancels.

    A done point without that ratio becomes a skipped one.
    """
    made = []
    for point in points:
        ratio = point.against.get(peer, {})
        if point.status == "done" and ratio.get("median") is not None:
            made.append(replace(point, samples=(), median=ratio["median"], q1=ratio.get("low"), q3=ratio.get("high")))
        elif point.status == "done":
            reason = f"no ratio to {peer} in this run"
            made.append(replace(point, status="skipped", reason=reason, samples=(), median=None, q1=None, q3=None))
        else:
            made.append(point)
    return made


def _logs(points: Sequence[Point]) -> np.ndarray | None:
    """Logarithms of the medians, None where there is a median without one."""
    medians = np.array([point.median for point in points], dtype=float)
    return np.log(medians) if bool(np.all((medians > 0) & (medians < math.inf))) else None


def _range(values: np.ndarray) -> float:
    """How far the values reach, spikes left out: noise, drift and changes together."""
    calm = segmentation.without_spikes(values, segmentation.noise_between(values))
    low, high = np.percentile(calm, (10, 90))
    return float(high - low)


def _views(done: Sequence[Point], own: np.ndarray) -> dict[str, np.ndarray]:
    """The logarithms of the series' own numbers as "", and those of its ratios to each peer that every run measured."""
    views = {"": own}
    for peer in sorted(set[str].intersection(*(set(point.against) for point in done))):
        values = _logs(ratio_points(done, peer))
        if values is not None and _range(values) > 0:  # a constant ratio is that of the series to itself
            views[peer] = values
    return views


def _judged_by(views: Mapping[str, np.ndarray]) -> str:
    """The view that reaches least far: a change of the series is in all of them, so it has the least of everything else."""
    reach = {name: _range(values) / (1 if name == "" else OWN_MAY_BE_QUIETER) for name, values in views.items()}
    return min(reach, key=lambda name: reach[name])


def _confirmed(views: Mapping[str, np.ndarray], judged: str, segments: Sequence[Segment]) -> list[Segment]:
    """The segments without breaks that no other view shows: what changed there was a peer, or the whole machine."""
    kept, others = list(segments), [values for name, values in views.items() if name != judged]
    place = 1
    while others and place < len(kept):
        left, right = kept[place - 1 : place + 1]
        change = _difference(views[judged], left, right)
        shown = any(_difference(values, left, right) * math.copysign(1, change) >= CONFIRMING * abs(change) for values in others)
        if shown and abs(change) >= segmentation.SMALLEST:
            place += 1
        else:
            kept[place - 1 : place + 1] = [(left[0], right[1])]
            place = max(place - 1, 1)
    return kept


def _difference(values: np.ndarray, left: Segment, right: Segment) -> float:
    return float(np.median(values[slice(*right)]) - np.median(values[slice(*left)]))


def _commit(done: Sequence[Point], runs: Mapping[str, Run]) -> str:
    """The first known commit."""
    return next((commit for point in done if (commit := clean_commit(runs[point.run]))), "")


def _change(
    done: Sequence[Point], runs: Mapping[str, Run], values: np.ndarray, left: Segment, right: Segment, series: Series | None
) -> Change:
    ratio = math.exp(_difference(values, left, right))
    good = _commit(done[slice(*left)][::-1], runs)
    bad = _commit(done[slice(*right)], runs)
    return Change(
        index=right[0],
        ratio=ratio,
        last_good=done[right[0] - 1].run,
        first_bad=done[right[0]].run,
        good_commit=good,
        bad_commit=bad,
        bisect=bisect_command(good, bad, ratio, series),
        direction="slower" if ratio > 1 else "faster",
    )


def analyse(points: Sequence[Point], runs: Mapping[str, Run], series: Series | None = None) -> Analysis:
    """Levels and changes of one series.

    Args:
        points: of the series; those without a number are left out.
        runs: theirs, by id.
        series: what it is, for commands that measure it and nothing else.
    """
    done = done_points(points, runs)
    medians = [point.median for point in done if point.median is not None]
    if len(done) < FEWEST:
        return Analysis((), (), 0.0, judged=False, reason=f"{len(done)} of the {FEWEST} results that judging takes")
    own = _logs(done)
    if own is None:
        return Analysis((), (), 0.0, judged=False, reason="a result is zero, and changes are ratios")
    views = _views(done, own)
    against = _judged_by(views)
    values = views[against]
    segments = _confirmed(views, against, segmentation.segments_of(values))
    noises = [segmentation.noise_inside(values[slice(*segment)]) for segment in segments]
    levels = tuple(
        Level(first, end - 1, float(np.median(medians[first:end])), noise) for (first, end), noise in zip(segments, noises, strict=True)
    )
    changes = tuple(_change(done, runs, values, left, right, series) for left, right in itertools.pairwise(segments))
    return Analysis(levels, changes, segmentation.threshold(values, segments), judged=True, against=against)
