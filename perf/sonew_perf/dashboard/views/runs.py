"""The runs: when, where, by what command, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from sonew_perf.dashboard.content import Content, Row
from sonew_perf.dashboard.views.plain import flat, number
from sonew_perf.records.model import Run


def run_row(run: Run, statuses: Mapping[str, int]) -> Row:
    """A run with the number of its points by status."""
    return {
        "id": run.id,
        "date": run.date,
        "label": run.label,
        "command": run.command,
        "commit": run.commit,
        "commit_date": run.commit_date,
        "branch": run.branch,
        "modified": run.modified,
        "diff": run.diff,
        "machine": run.machine.id,
        "machine_name": run.machine.name,
        "load": number(run.load),
        "seconds": number(run.seconds),
        "origin": run.origin,
        "pinned": run.pinned,
        "points": sum(statuses.values()),
        "failed": statuses.get("failed", 0),
        "skipped": statuses.get("skipped", 0),
        "details": flat({"device": run.machine.device, "threads": run.machine.threads, **run.machine.details}),
        "file": Path(run.path).name,
    }


def runs(content: Content) -> list[Row]:
    """The view `runs`, newest first."""
    statuses: dict[str, Counter[str]] = {run.id: Counter() for run in content.runs}
    for points in content.history.values():
        for point in points:
            if point.run in statuses:
                statuses[point.run][point.status] += 1
    return [run_row(run, statuses[run.id]) for run in reversed(content.runs)]
