"""The roofline: each case's arithmetic and bytes per second beside the copy that was measured in the same run.

Both axes divide *counted* work by *measured* time: `work` says how the work is counted, from the algorithm. The memory roof is a copy's
bandwidth; a compute roof is drawn only where the run has a measured one. Points of one run never stand under another run's roof.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import islice
from typing import Any, Final

from sonew_perf.dashboard.content import Content, Row
from sonew_perf.dashboard.views.plain import number
from sonew_perf.dashboard.views.work import rate, work_of
from sonew_perf.records.checks import is_number
from sonew_perf.records.model import Point, Run, Series

HOW: Final = (
    "Bytes and operations are counted from the algorithm, not measured; times and the copy's bandwidth are measured. "
    "Points and roof are all of one run; a share is that of the copy of as many elements in it."
)
NO_ROOF: Final = " On a CPU a copy also reads what it overwrites, so work that reads more than it writes may go beyond it."
COMPUTE_ROOF: Final = "peak flops"  # the case of a series that measures the compute roof; its facts have "gflops"
MOST_RUNS: Final = 5  # newest runs of a machine that have a copy


Found = list[tuple[Series, Point]]  # what one run has numbers of


def roofline(content: Content) -> Row:
    """The view `roofline`: of each machine the newest runs that have a copy, newest first."""
    found: dict[str, Found] = defaultdict(list)
    machine_of = {run.id: run.machine.id for run in content.runs}
    for name, points in content.history.items():
        series = content.series.get(name)
        if series is not None and series.measure == "time":
            for point in points:
                if point.median and machine_of.get(point.run) == series.machine:
                    found[point.run].append((series, point))
    devices: list[Row] = []
    for machine in content.machines:
        runs = (run for run in reversed(content.runs) if run.machine.id == machine)
        made = (_device(content, run, found[run.id]) for run in runs if any(series.case == "copy" for series, _ in found[run.id]))
        devices += islice((device for device in made if device["points"]), MOST_RUNS)
    return {"devices": devices}


def _device(content: Content, run: Run, found: Found) -> Row:
    """The roofs and the points of one run."""
    copies = {
        (series.workload, series.elements): rate(work_of(series).moved, point.median) for series, point in found if series.case == "copy"
    }
    flops = _compute_roof(found)
    drawn = [_drawn(series, point, copies.get((series.workload, series.elements)), flops) for series, point in found]
    return {
        "machine": run.machine.id,
        "name": content.machines[run.machine.id].name,
        "run": run.id,
        "date": run.date,
        "label": run.label,
        "copy_gbps": number(copies[max(copies, key=lambda size: size[1])]),  # small ones stay in caches
        "flops_gflops": number(flops),
        "how": HOW + (NO_ROOF if run.machine.type == "cpu" else ""),
        "points": [row for row in drawn if row is not None],
    }


def _compute_roof(found: Found) -> float | None:
    measured: list[Any] = [point.facts.get("gflops") for series, point in found if series.case == COMPUTE_ROOF]
    return max((float(value) for value in measured if is_number(value)), default=None)


def _drawn(series: Series, point: Point, copy: float | None, roof: float | None) -> Row | None:
    """A case under the roofs, None where its work was never counted."""
    work = work_of(series)
    if not work.moved or work.flops is None:
        return None
    gbps, intensity = rate(work.moved, point.median), work.flops / work.moved
    ridge = roof / copy if roof and copy else None  # operations per byte at which both roofs meet
    return {
        "series": series.id,
        "title": series.title,
        "intensity": number(intensity),
        "gflops": number(rate(work.flops, point.median)),
        "gbps": number(gbps),
        "share": number(gbps / copy) if gbps and copy else None,
        "ms": number(point.median),
        "band": series.band,
        "bound": None if ridge is None else "compute" if intensity > ridge else "memory",
        "run": point.run,
    }
