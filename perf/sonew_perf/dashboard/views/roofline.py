"""The roofline: each case's arithmetic and bytes per second beside the copy that was measured in the same run.

Both axes divide *counted* work by *measured* time: `work` says how the work is counted, from the algorithm. The memory roof is a copy's
bandwidth; a compute roof is drawn only where a record has a measured one.
"""

from __future__ import annotations

from typing import Final

from sonew_perf.dashboard.content import Content, Row
from sonew_perf.dashboard.views.plain import number
from sonew_perf.dashboard.views.series import copy_gbps
from sonew_perf.dashboard.views.work import rate, work_of
from sonew_perf.records.model import Point, Series

HOW: Final = (
    "Bytes and operations are counted from the algorithm, not measured; times and the copy's bandwidth are measured, in the same run."
)
NO_ROOF: Final = " On a CPU a copy also reads what it overwrites, so work that reads more than it writes may go beyond it."
COMPUTE_ROOF: Final = "peak flops"  # the case of a series that measures the compute roof; its facts have "gflops"


def roofline(content: Content) -> Row:
    """The view `roofline`."""
    devices = [_device(content, machine) for machine in content.machines]
    return {"devices": [device for device in devices if device["points"]]}


def _device(content: Content, machine: str) -> Row:
    here = [series for series in content.series.values() if series.machine == machine and series.id in content.last]
    flops = _compute_roof(content, here)
    points = [point for series in here if (point := _point(content, series, flops)) is not None]
    return {
        "machine": machine,
        "name": content.machines[machine].name,
        "copy_gbps": number(_memory_roof(content, here)),
        "flops_gflops": number(flops),
        "how": HOW + (NO_ROOF if content.machines[machine].type == "cpu" else ""),
        "points": points,
    }


def _memory_roof(content: Content, here: list[Series]) -> float | None:
    """The copy of most elements, of the newest run that has one: small ones stay in caches."""
    copies = [series for series in here if series.case == "copy" and series.measure == "time"]
    if not copies:
        return None
    largest = max(copies, key=lambda series: (series.elements, content.last[series.id].run))
    return rate(work_of(largest).moved, content.last[largest.id].median)


def _compute_roof(content: Content, here: list[Series]) -> float | None:
    measured = [content.last[series.id].facts.get("gflops") for series in here if series.case == COMPUTE_ROOF]
    return max((value for value in measured if isinstance(value, int | float)), default=None)


def _point(content: Content, series: Series, flops: float | None) -> Row | None:
    work, last = work_of(series), content.last[series.id]
    if work.moved is None or work.flops is None or not last.median:
        return None
    return _drawn(content, series, last, work.moved, work.flops, flops)


def _drawn(content: Content, series: Series, last: Point, moved: int, operations: int, roof: float | None) -> Row:
    gbps, copy = rate(moved, last.median), copy_gbps(content, series, last.run)
    intensity = operations / moved
    ridge = roof / copy if roof and copy else None  # operations per byte at which both roofs meet
    return {
        "series": series.id,
        "title": series.title,
        "intensity": number(intensity),
        "gflops": number(rate(operations, last.median)),
        "gbps": number(gbps),
        "share": number(gbps / copy) if gbps and copy else None,
        "ms": number(last.median),
        "band": series.band,
        "bound": None if ridge is None else "compute" if intensity > ridge else "memory",
        "run": last.run,
    }
