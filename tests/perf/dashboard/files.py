"""A made content as the files of a store, so that the whole way from a record to a view can be walked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from sonew_perf.dashboard.content import Content
from sonew_perf.history.tickets import write_tickets
from sonew_perf.records.machines import describe, machine_of
from sonew_perf.records.model import Machine, Point, Run, Series
from sonew_perf.records.runs import write_run
from tests.perf.dashboard.made import HOSTILE


def identified(machine: Machine) -> Machine:
    """The machine under the id that a reader gives it."""
    return machine_of(describe(machine))


def entry_of(series: Series, point: Point, run: Run) -> dict[str, Any]:
    """A point as a record's entry."""
    settings: dict[str, Any] = {} if series.band is None else {"band": series.band}
    samples = {"samples_ms": list(point.samples)} if series.unit == "ms" else {"samples": list(point.samples), "unit": series.unit}
    facts = {name: value for name, value in point.facts.items() if name not in {"config", "peak_bytes"}}
    plans = [{"config": point.facts["config"]}] if "config" in point.facts else []
    return {
        "kind": f"{series.kernel} time",
        "kernel": series.kernel,
        "case": series.case,
        "framework": series.framework,
        "dtype": series.dtype,
        "settings": settings,
        "workload": {"name": series.workload, "elements": series.elements},
        "machine": describe(identified(run.machine)),
        "date": run.date,
        "status": point.status,
        "reason": point.reason,
        "against": {peer: dict(ratio) for peer, ratio in point.against.items()},
        "plans": plans,
        **(samples if point.samples else {}),
        **facts,
    }


def write_store(made: Content, folder: Path) -> None:
    """Write runs, comparisons and tickets; series with markup in their names, which no reader takes, as a broken file of their own."""
    known = {one.id: one for one in made.series.values() if HOSTILE not in one.title}
    hostile = [
        entry_of(one, point, made.runs[0]) for one in made.series.values() if one.id not in known for point in made.history[one.id][:1]
    ]
    training = made.index.training_entries()
    full = {series: made.index.points(series) for series in known}
    for run in made.runs:
        points = [point for series in known for point in full[series] if point.run == run.id]
        entries = [entry_of(known[point.series], point, run) for point in points]
        entries += [{**one, "machine": describe(identified(run.machine))} for one in training if one["run"] == run.id]
        write_run(folder, replace(run, machine=identified(run.machine)), entries)
    (folder / "runs" / "hostile.json").write_text(json.dumps({"schema_version": 1, "entries": hostile}), encoding="utf-8")
    (folder / "runs" / "torn.json").write_text('{"schema_version": 1, "entries": [', encoding="utf-8")
    (folder / "compares").mkdir()
    for record in made.comparisons:
        path = folder / "compares" / f"{record['comparison']['id']}.json"
        path.write_text(json.dumps(record), encoding="utf-8")
    write_tickets(folder, made.tickets)
