"""The first page: what the last run and comparison said, what needs attention, and every kernel as a map of band against size."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sonew_perf.dashboard.content import Content, Row
from sonew_perf.dashboard.views.comparisons import counts
from sonew_perf.dashboard.views.meta import problem_row
from sonew_perf.dashboard.views.plain import number
from sonew_perf.dashboard.views.regressions import found_regressions
from sonew_perf.dashboard.views.runs import run_row
from sonew_perf.records.model import Point, Series

MOST_ATTENTION: Final = 10
LEAST_OF_KIND: Final = 2  # places of each kind that has as many
STALE: Final = timedelta(days=30)
BASELINES: Final = ("AdamW fused", "optax.adamw", "copy")  # whom a kernel is compared with, the first that was timed beside it
Group = tuple[str, str, str, str, str]  # kernel, case without its band, framework, machine, dtype


def overview(content: Content) -> Row:
    """The view `overview`."""
    run = content.runs[-1] if content.runs else None
    ab = [record for record in content.comparisons if _real(record["comparison"])]
    listed, total = attention(content, ab)
    return {
        "last_run": run_row(run, Counter(point.status for point in content.newest.values() if point.run == run.id)) if run else None,
        "last_comparison": _last_comparison(ab[-1]) if ab else None,
        "noise_floor": _noise_floor(content),
        "attention": listed,
        "attention_total": total,
        "heatmaps": heatmaps(content),
    }


def _real(said: Row) -> bool:
    """Whether a comparison is of two sides that nobody made slower on purpose."""
    return said["mode"] == "A/B" and not said.get("planted_slowdown")


def _last_comparison(record: Row) -> Row:
    said = record["comparison"]
    return {"id": said["id"], "title": said["title"], "date": said["date"], "counts": counts(record)}


def _noise_floor(content: Content) -> Row | None:
    """Of the newest comparison of a commit with itself that has one."""
    for record in reversed(content.comparisons):
        said = record["comparison"]
        if said["mode"] == "A/A" and said["noise_floor"] is not None:
            return {"percent": number(100 * said["noise_floor"]), "comparison": said["id"], "date": said["date"]}
    return None


def attention(content: Content, ab: Sequence[Row]) -> tuple[list[Row], int]:
    """(what to look at, of how much): the largest loss in milliseconds first, then what has none: failures, broken files, old numbers.

    Each of these kinds keeps a few places, however much became slower.
    """
    slower = sorted([*_regressed(content), *_slower(ab)], key=lambda item: -(item["ms"] or 0.0))
    kinds = (slower, _failed(content), _broken(content), _stale(content))
    places = [min(len(items), LEAST_OF_KIND) for items in kinds]
    for kind, items in enumerate(kinds):
        places[kind] += min(len(items) - places[kind], MOST_ATTENTION - sum(places))
    return [item for items, most in zip(kinds, places, strict=True) for item in items[:most]], sum(map(len, kinds))


def _item(kind: str, title: str, text: str, page: str, place: str, *, change: float | None = None, ms: float | None = None) -> Row:
    return {"kind": kind, "title": title, "text": text, "change": number(change), "ms": number(ms), "page": page, "id": place}


def _regressed(content: Content) -> list[Row]:
    return [
        _item(
            "regression",
            found.title,
            f"slower since {found.date[:10]}" + (f", commit {found.bad_commit[:12]}" if found.bad_commit else ""),
            "kernel",
            found.series,
            change=found.ratio,
            ms=found.ms,
        )
        for found in found_regressions(content)
        if found.unsettled
    ]


def _slower(ab: Sequence[Row]) -> list[Row]:
    """Cases that the newest comparison calls slower."""
    if not ab:
        return []
    said = ab[-1]["comparison"]
    return [
        _item(
            "comparison",
            entry["case"],
            f"slower in {said['title']}",
            "compare",
            said["id"],
            change=entry["ratio"],
            ms=None if None in (entry["head_ms"], entry["base_ms"]) else entry["head_ms"] - entry["base_ms"],
        )
        for entry in ab[-1]["entries"]
        if entry["verdict"] == "SLOWER"
    ]


def _failed(content: Content) -> list[Row]:
    """Series whose newest result is a failure; where there are several machines it says on which."""

    def text(point: Point) -> str:
        run, reason = content.run_by_id.get(point.run), point.reason or "failed"
        return reason if run is None or len(content.machines) == 1 else f"on {run.machine.device}: {reason}"

    return [
        _item("failure", content.series[series_id].title, text(point), "kernel", series_id)
        for series_id, point in content.newest.items()
        if point.status == "failed" and series_id in content.series
    ]


def _broken(content: Content) -> list[Row]:
    rows = [problem_row(problem) for problem in content.problems]
    return [_item("broken file", row["path"], row["reason"], "runs", "") for row in rows]


def _stale(content: Content) -> list[Row]:
    """Series that the machine's newest run left behind by a month, one line a machine."""
    newest = {run.machine.id: run.date for run in content.runs}
    old: Counter[str] = Counter()
    for series_id, point in content.last.items():
        run = content.run_by_id.get(point.run)
        if run is not None and series_id in content.series and _age(run.date, newest[run.machine.id]) > STALE:
            old[run.machine.id] += 1
    return [
        _item("stale", content.machines[machine].name, f"{count} series not measured in the last {STALE.days} days of runs", "runs", "")
        for machine, count in old.items()
    ]


def _age(date: str, now: str) -> timedelta:
    """Between two dates of records, nothing where one of them is not a date."""
    try:
        return datetime.fromisoformat(now) - datetime.fromisoformat(date)
    except (ValueError, TypeError):
        return timedelta()


def heatmaps(content: Content) -> list[Row]:
    """A map for each kernel, surface, machine and storage type whose plain cases were timed beside a baseline."""
    groups: dict[Group, list[Series]] = defaultdict(list)
    for series in content.series.values():
        if series.band is not None and series.measure == "time" and not series.variant and series.case.startswith("SONew"):
            case = re.sub(rf",? band {series.band}\b", "", series.case)
            groups[series.kernel, case, series.framework, series.machine, series.dtype].append(series)
    maps = [_heatmap(content, group, members) for group, members in groups.items()]
    return [found for found in maps if found is not None]


def _heatmap(content: Content, group: Group, members: list[Series]) -> Row | None:
    kernel, case, framework, machine, dtype = group
    timed = [content.last[series.id] for series in members if series.id in content.last]
    baseline = next((name for name in BASELINES if any(name in point.against for point in timed)), None)
    if baseline is None:
        return None
    bands = sorted({series.band for series in members if series.band is not None})
    sizes = sorted({(series.elements, series.workload) for series in members})
    placed = {(series.band, series.elements, series.workload): series for series in members}
    return {
        "kernel": kernel,
        "case": case,
        "framework": framework,
        "machine": machine,
        "dtype": dtype,
        "baseline": baseline,
        "bands": bands,
        "sizes": [{"label": _size(elements, workload), "elements": elements, "workload": workload} for elements, workload in sizes],
        "cells": [[_cell(content, placed.get((band, *size)), baseline) for size in sizes] for band in bands],
    }


def _size(elements: int, workload: str) -> str:
    """One tensor by its elements, as "64 Ki", a model by its name."""
    if workload != "one tensor":
        return workload
    for unit, size in (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if elements >= size:
            return f"{elements / size:.4g} {unit}"
    return str(elements)


def _cell(content: Content, series: Series | None, baseline: str) -> Row | None:
    """A case's ratio to the baseline in its newest run; what failed or was left out there keeps its reason."""
    if series is None:
        return None
    newest = content.newest.get(series.id)
    point = newest if newest is not None and newest.status != "done" else content.last.get(series.id)
    if point is None:
        return None
    ratio = point.against.get(baseline, {})
    if point.status == "done" and not {"median", "low", "high"} <= ratio.keys():
        return None
    return _ratio_cell(series, point, ratio.get("median"), ratio.get("low"), ratio.get("high"))


def _ratio_cell(series: Series, point: Point, median: float | None, low: float | None, high: float | None) -> Row:
    """Unsure: the interval contains 1, so that nobody can say which is faster."""
    unsure = low is not None and high is not None and low <= 1 <= high
    return {
        "ratio": number(median),
        "low": number(low),
        "high": number(high),
        "unsure": unsure,
        "series": series.id,
        "run": point.run,
        "status": point.status,
        "reason": point.reason,
    }
