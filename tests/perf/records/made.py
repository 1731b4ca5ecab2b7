"""Stores for tests: noisy histories that look like real ones, of any size, the same for the same seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha1
from pathlib import Path
from typing import Any, Final

import numpy as np

from sonew_perf.records.index import Index
from sonew_perf.records.machines import machine_of
from sonew_perf.records.model import Point, Run, Series
from sonew_perf.records.reading import read_record
from sonew_perf.records.runs import write_run

MACHINE: Final[Mapping[str, Any]] = {"device": "AMD EPYC", "type": "cpu", "threads": 2, "python": "3.11.7", "torch": "2.13.0+cpu"}
SERIES, RUNS = 8, 5  # of the store that the fixtures make
BEGIN: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
ROUNDS: Final = 15
NOISE: Final = 0.02  # relative, between the samples of a run; between runs it is half of it
NANOSECONDS: Final[Mapping[str, float]] = {  # per element of a large tensor
    "AdamW fused": 0.9,
    "copy": 0.3,
    "SONew band 0": 1.1,
    "SONew band 1": 1.8,
    "SONew band 2": 2.4,
    "SONew band 4": 3.7,
}
PEERS: Final = ("AdamW fused", "copy")
TORN: Final = b'{"schema_version": 1, "entries": [{"case": "SONew ba'


@dataclass(frozen=True, slots=True)
class Step:
    """A planted change: from a run on (0 is the first), a series (0 is the first of a run) takes so many times as long."""

    series: int
    run: int
    ratio: float


def fake_commit(number: int) -> str:
    """40 hexadecimal digits that are the same for the same run."""
    return sha1(f"commit {number}".encode(), usedforsecurity=False).hexdigest()


def step_entry(case: str, elements: int, samples: Sequence[float], against: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """An entry as `sonew-perf run` writes it. `more` replaces or adds fields."""
    ours = case.startswith("SONew")
    settings = {"optimizer": "SONew", "band": int(case.split()[2].strip(",")), "backend": "auto", "tuning": "on"} if ours else {}
    config = {"block": 1024, "segment": 16384, "threads": 0}
    plan = {"backend": "cpu", "kernel": "cpu", "source_hash": "0123456789abcdef", "config": config, "provenance": "analytic default"}
    return {
        "kind": "step time",
        "workload": {"name": "one tensor", "tensors": 1, "elements": elements, "dtype": "float32"},
        "machine": dict(MACHINE),
        "load_before": 0.5,
        "date": BEGIN.isoformat(),
        "case": case,
        "settings": settings,
        "samples_ms": list(samples),
        "repetitions": 8,
        "median_ms": float(np.median(samples)) if len(samples) else None,
        "against": dict(against or {}),
        "state_bytes": 8 * elements,
        "peak_bytes": None,
        "phases_ms": {},
        "plans": [plan] if ours else [],
        **more,
    }


def made_run(number: int, **more: Any) -> Run:
    """The run of a day; `more` replaces fields."""
    date = BEGIN + timedelta(days=number)
    fields: dict[str, Any] = {
        "id": f"{date:%Y%m%dT%H%M%SZ}-{number:08x}",
        "date": date.isoformat(),
        "machine": machine_of(MACHINE),
        "command": "sonew-perf run",
        "commit": fake_commit(number),
        "commit_date": (date - timedelta(hours=2)).isoformat(),
        "branch": "main",
        "modified": False,
        "load": 0.5,
        "seconds": 60.0,
    }
    return Run(**{**fields, **more})


def make_store(folder: Path, *, series: int, runs: int, seed: int = 0, step: Step | None = None) -> list[str]:
    """Write a store with a run per day.

    Args:
        folder: the store's. series: per run, one entry each: six cases at as many sizes as it takes. runs: how many.
        seed: of the noise. step: a planted change.

    Returns:
        The ids of the runs, by date.
    """
    rng = np.random.default_rng(seed)
    names = list(NANOSECONDS)
    places = [(names[place % len(names)], 2**16 * (1 + place // len(names))) for place in range(series)]
    base = np.array([NANOSECONDS[case] * elements * 1e-6 for case, elements in places])
    made = []
    for number in range(runs):
        day = base * np.exp(NOISE / 2 * rng.standard_normal(series))
        if step is not None and number >= step.run:
            day[step.series] *= step.ratio
        samples = np.round(day[:, None] * np.exp(NOISE * rng.standard_normal((series, ROUNDS))), 6)
        medians = np.median(samples, axis=1)
        entries = []
        for place, (case, elements) in enumerate(places):
            first = place - place % len(names)  # AdamW of the same size; the copy is next to it
            ratios = {peer: medians[place] / medians[first + offset] for offset, peer in enumerate(PEERS) if first + offset < series}
            against = {peer: {"median": ratio, "low": 0.99 * ratio, "high": 1.01 * ratio} for peer, ratio in ratios.items()}
            entries.append(step_entry(case, elements, samples[place].tolist(), against))
        run = made_run(number)
        write_run(folder, run, entries)
        made.append(run.id)
    return made


def everything(index: Index) -> dict[str, Any]:
    """All that an index says, as plain values; without what tells the moment of its making."""
    series = index.series()
    return {
        "runs": index.runs(),
        "series": series,
        "points": [index.points(one.id) for one in series],
        "summaries": sorted(index.summary_points(), key=lambda point: (point.series, point.run)),
        "last": sorted(index.last_points().items()),
        "problems": index.problems(),
        "training": index.training_entries(),
        "revision": index.revision,
    }


def replace(path: Path, content: bytes) -> None:
    """Replace a file as a writer does."""
    beside = path.with_suffix(".new")
    beside.write_bytes(content)
    beside.replace(path)


def read_run(path: Path, *, origin: str) -> tuple[Run, list[Series], list[Point]]:
    """The run in a record file, its series and its points, in the file's order."""
    record = read_record(path, origin=origin)
    return record.run, [result.series for result in record.results], [result.point for result in record.results]
