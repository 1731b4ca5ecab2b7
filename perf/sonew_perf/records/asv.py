"""A store's points as a folder of asv results (result files of version 2), which `asv publish` and `asv compare` read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sonew_perf.records.exporting import Exported, chosen
from sonew_perf.records.files import OUTPUT_FIX, write_text
from sonew_perf.records.index import Index
from sonew_perf.records.model import Machine, Point, Run, Series

ENVIRONMENT: Final = "sonew-perf"
COLUMNS: Final = ("result", "params", "version", "started_at", "duration", "stats_q_25", "stats_q_75", "stats_repeat", "samples")
UNITS: Final[Mapping[str, tuple[str, str, float]]] = {  # asv's type and unit, and how many of them ours is
    "ms": ("time", "seconds", 1e-3),
    "s": ("time", "seconds", 1.0),
    "bytes": ("peakmemory", "bytes", 1.0),
}


def benchmark_name(series: Series) -> str:
    """A name that asv takes for a benchmark's: words, and the series' id because words may be equal."""
    words = re.sub(r"[^0-9A-Za-z]+", "_", series.title).strip("_")
    return f"{series.kernel.replace(' ', '_')}.{words}_{series.id}"


def _benchmark(series: Series) -> dict[str, Any]:
    kind, unit, _ = UNITS[series.unit]
    name = benchmark_name(series)
    return {
        "name": name,
        "code": series.title,
        "type": kind,
        "unit": unit,
        "params": [],
        "param_names": [],
        "version": "1",
        "timeout": 60.0,
    }


def _row(series: Series, point: Point, started: int) -> list[Any]:
    """What a result file says of a benchmark, one value per column, each a list of one as there are no parameters."""
    factor = UNITS[series.unit][2]
    result, low, high = (None if value is None else [value * factor] for value in (point.median, point.q1, point.q3))
    samples = [[value * factor for value in point.samples]] if point.samples else None
    return [result, [], "1", started, None, low, high, [len(point.samples)], samples]


def _machine(machine: Machine) -> dict[str, Any]:
    return {"machine": machine.id, "os": "", "arch": machine.type, "cpu": machine.device, "num_cpu": str(machine.threads), "ram": ""}


def _milliseconds(date: str) -> int:
    return int(1000 * datetime.fromisoformat(date).timestamp())


def _result(run: Run, machine: str, rows: Mapping[str, list[Any]]) -> dict[str, Any]:
    python = str(run.machine.details.get("python", ""))
    return {
        "commit_hash": run.commit,
        "env_name": ENVIRONMENT,
        "date": _milliseconds(run.commit_date or run.date),
        "params": _machine(run.machine) | {"machine": machine, "python": python},
        "python": python,
        "requirements": {},
        "env_vars": {},
        "result_columns": COLUMNS,
        "results": rows,
        "durations": {},
        "version": 2,
    }


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, allow_nan=False) + "\n", fix=OUTPUT_FIX)


def _rank(run: Run) -> tuple[bool, str, str]:
    """Of the runs of one commit the highest stands: of the commit itself before a tree that differs from it, then the newest."""
    return not run.modified, run.date, run.id


def write(index: Index, folder: Path, pattern: str = "") -> Exported:
    """Fill a folder: benchmarks.json, and a folder per machine with machine.json and a file per commit.

    Args:
        index: of the store. folder: is made where it is missing; files of the same names are replaced.
        pattern: of `exporting.chosen`.

    Returns:
        What is in it. Runs without a commit have no place there; of several runs of one commit one stands (`_rank`).

    Raises:
        RecordError: the folder cannot be written.
    """
    series = chosen(index, pattern)
    runs = {run.id: run for run in index.runs() if run.commit}
    machines = {run.machine.id: run.machine for run in runs.values()}
    results: dict[tuple[str, str], tuple[Run, dict[str, list[Any]]]] = {}
    for one in series:
        for point in index.points(one.id):
            run = runs.get(point.run)
            if run is None or one.machine not in machines:
                continue
            known = results.get((one.machine, run.commit))
            if known is None or _rank(known[0]) < _rank(run):
                known = results[one.machine, run.commit] = run, {}
            if known[0].id == run.id:
                known[1][benchmark_name(one)] = _row(one, point, _milliseconds(run.date))
    _write(folder / "benchmarks.json", {benchmark_name(one): _benchmark(one) for one in series} | {"version": 2})
    for machine in {machine for machine, _ in results}:
        _write(folder / machine / "machine.json", _machine(machines[machine]) | {"version": 1})
    for (machine, commit), (run, rows) in results.items():
        _write(folder / machine / f"{commit[:8]}-{ENVIRONMENT}.json", _result(run, machine, rows))
    return Exported(len({run.id for run, _ in results.values()}), sum(len(rows) for _, rows in results.values()))
