"""One series after another: the list, and the whole history of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

from sonew_perf.dashboard.content import Content, Row
from sonew_perf.dashboard.views.plain import evenly, flat, number, plain
from sonew_perf.dashboard.views.work import rate, work_of
from sonew_perf.history.regressions import regressions_of
from sonew_perf.records.model import Point, Series

SPARK: Final = 40  # medians of the small chart in the list
WITH_SAMPLES: Final = 30  # newest runs whose samples and facts travel with a series


def copy_speeds(content: Content, series: Series) -> dict[str, float]:
    """GB/s of the copy of as many elements on the same machine, by run: what the memory system allowed there and then."""
    wanted = (series.measure, series.machine, series.workload, series.elements)
    found: dict[str, float] = {}
    for other in content.series.values():
        if other.case == "copy" and (other.measure, other.machine, other.workload, other.elements) == wanted:
            moved = work_of(other).moved
            speeds = ((point.run, rate(moved, point.median)) for point in content.index.summary_points(other.id))
            found = {run: speed for run, speed in speeds if speed is not None} | found
    return found


def series_row(content: Content, series: Series, points: Sequence[Point]) -> Row:
    """A series as the list shows it."""
    newest = points[-1] if points else None
    done = [point for point in points if point.median is not None]
    run = content.run_by_id.get(newest.run) if newest else None
    changes = content.analyses[series.id].analysis.changes if series.id in content.analyses else ()
    return {
        "id": series.id,
        "title": series.title,
        "kernel": series.kernel,
        "case": series.case,
        "measure": series.measure,
        "unit": series.unit,
        "framework": series.framework,
        "workload": series.workload,
        "elements": series.elements,
        "dtype": series.dtype,
        "band": series.band,
        "variant": series.variant,
        "machine": series.machine,
        "points": len(points),
        "last": number(done[-1].median) if done else None,
        "last_run": newest.run if newest else "",
        "last_date": run.date if run else "",
        "status": newest.status if newest else "skipped",
        "change": number(changes[-1].ratio) if changes else None,
        "spark": [number(point.median) for point in evenly(done[-4 * SPARK :], SPARK)],
    }


def all_series(content: Content) -> list[Row]:
    """The view `series`."""
    return [series_row(content, series, content.history.get(series.id, [])) for series in content.series.values()]


def one_series(content: Content, series: Series, *, with_samples: int = WITH_SAMPLES) -> Row:
    """The view `series/<id>`.

    Args:
        content: the store. series: one of its series. with_samples: newest runs whose samples are shown.
    """
    points = content.index.points(series.id)
    recent = points[-with_samples:] if with_samples else []
    work = work_of(series)
    return {
        "series": series_row(content, series, points),
        "points": _columns(content, points, work.moved, copy_speeds(content, series) if work.moved is not None else {}),
        **_analysis(content, series, points),
        "samples": {point.run: [number(sample) for sample in point.samples] for point in recent if point.samples},
        "facts": {point.run: flat(point.facts) for point in points[-WITH_SAMPLES:]},
        "repro": {point.run: content.run_by_id[point.run].command for point in points[-WITH_SAMPLES:] if point.run in content.run_by_id},
        "bytes_moved": work.moved,
        "siblings": _siblings(content, series),
    }


def _columns(content: Content, points: Sequence[Point], moved: int | None, copies: Mapping[str, float]) -> Row:
    runs = [content.run_by_id.get(point.run) for point in points]
    peers = sorted({peer for point in points for peer in point.against})
    return {
        "run": [point.run for point in points],
        "date": [run.date if run else "" for run in runs],
        "commit": [run.commit if run else "" for run in runs],
        "label": [run.label if run else "" for run in runs],
        "modified": [run.modified if run else None for run in runs],
        "median": [number(point.median) for point in points],
        "q1": [number(point.q1) for point in points],
        "q3": [number(point.q3) for point in points],
        "status": [point.status for point in points],
        "reason": [point.reason for point in points],
        "n": [len(point.samples) for point in points],
        "ratio": {peer: [number(_median(point, peer)) for point in points] for peer in peers},
        "gbps": [number(rate(moved, point.median)) for point in points],
        "copy_gbps": [number(copies.get(point.run)) for point in points],
    }


def _median(point: Point, peer: str) -> float | None:
    return point.against[peer].get("median") if peer in point.against else None


def _analysis(content: Content, series: Series, points: Sequence[Point]) -> Row:
    """What the history says; places count the columns, runs without a number among them."""
    history = content.analyses.get(series.id)
    if history is None:
        return {"levels": [], "changes": [], "threshold": None, "judged": False, "reason": "not analysed yet", "against": ""}
    column = {point.run: place for place, point in enumerate(points)}
    place_of = [column[point.run] for point in history.points]
    said = {
        found.first_bad: {"state": found.state, "note": found.note} for found in regressions_of(history, content.run_by_id, content.tickets)
    }
    found = history.analysis
    levels = [{**asdict(level), "first": place_of[level.first], "last": place_of[level.last]} for level in found.levels]
    changes = [{**asdict(change), "index": place_of[change.index], "ticket": said.get(change.first_bad)} for change in found.changes]
    return {
        "levels": plain(levels),
        "changes": plain(changes),
        "threshold": number(found.threshold) if found.judged else None,
        "judged": found.judged,
        "reason": found.reason,
        "against": found.against,
    }


def _siblings(content: Content, series: Series) -> list[Row]:
    """Other bands and cases of the same kernel and workload on the same machine."""

    def key(one: Series) -> tuple[str, str, int, str, str]:
        return one.kernel, one.workload, one.elements, one.measure, one.machine

    return [{"id": one.id, "title": one.title} for one in content.series.values() if key(one) == key(series) and one != series]
