"""Histories for tests: made ones, and pieces of recorded ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Any

import numpy as np

from sonew_perf.records.model import Machine, Point, Run, Series

RECORDINGS = Path(__file__).with_name("recordings")
TUNING = Path(__file__).parents[2] / "autotune" / "recordings" / "cpu-epyc2.json"
BEGIN = datetime(2026, 1, 1, 12, tzinfo=UTC)
MACHINE = Machine(id="cpu1", device="A CPU", type="cpu", threads=2)


def commit(number: int) -> str:
    return sha1(f"commit {number}".encode(), usedforsecurity=False).hexdigest()


def a_run(number: int, **fields: Any) -> Run:
    """The run of one day."""
    date = BEGIN + timedelta(days=number)
    defaults: dict[str, Any] = {"commit": commit(number), "modified": False}
    return Run(id=f"run-{number:04}", date=date.isoformat(), machine=MACHINE, **{**defaults, **fields})


def runs_of(count: int) -> dict[str, Run]:
    return {run.id: run for run in map(a_run, range(count))}


def a_series(**fields: Any) -> Series:
    defaults: dict[str, Any] = {
        "kernel": "step",
        "case": "SONew band 1",
        "measure": "time",
        "unit": "ms",
        "framework": "torch",
        "workload": "one tensor",
        "elements": 1048576,
        "dtype": "float32",
        "band": 1,
        "variant": "",
        "machine": MACHINE.id,
    }
    return Series(**{**defaults, **fields})


def points_of(medians: Sequence[float] | np.ndarray, series: Series | None = None, **ratios: Sequence[float] | np.ndarray) -> list[Point]:
    """A point per value, one run each; `ratios` to peers as names."""
    identity = (series or a_series()).id
    made = []
    for number, median in enumerate(np.asarray(medians, dtype=float)):
        against = {peer: {"median": float(values[number])} for peer, values in ratios.items()}
        made.append(Point(series=identity, run=f"run-{number:04}", median=float(median), against=against))
    return made


class FakeIndex:
    """What `histories` reads of an index."""

    def __init__(self, points: Mapping[Series, Sequence[Point]], runs: Mapping[str, Run]) -> None:
        self._points, self._runs = dict(points), runs

    def runs(self) -> list[Run]:
        return list(self._runs.values())

    def series(self) -> list[Series]:
        return list(self._points)

    def summary_points(self, series_id: str | None = None) -> list[Point]:
        return [point for points in self._points.values() for point in points if series_id in (None, point.series)]


@cache
def recording(name: str) -> dict[str, np.ndarray]:
    """Samples of each case in ms, (runs, rounds): the same work all the time."""
    content = json.loads((RECORDINGS / f"{name}.json").read_text())
    return {case: np.array(samples) for case, samples in content["samples_ms"].items()}


def recorded_points(name: str, case: str, rows: np.ndarray, *, step: float = 0.0, at: int = 0) -> list[Point]:
    """Runs of a recording, in any order, as points with their ratios to the peers.

    Args:
        name: of the recording. case: its case. rows: (n,) which runs.
        step: planted change from point `at` on, 0.03 for 3 % slower: every sample takes so much longer, the peers' do not.
    """
    samples = {peer: times[rows] for peer, times in recording(name).items()}
    own = samples[case].copy()
    own[at:] *= 1 + step
    ratios = {peer: np.median(own / samples[peer], axis=1) for peer in ("AdamW fused", "copy") if peer != case}
    return points_of(np.median(own, axis=1), **ratios)


@cache
def shared_rounds(name: str, band: int) -> np.ndarray:
    """Recorded rounds in which every configuration of a tuning problem took its turn: (40, 60), relative to each configuration's median."""
    content = json.loads(TUNING.read_text())
    [entry] = [each for each in content["entries"] if (each["case"]["name"], each["case"]["band"]) == (name, band)]
    times = np.array([record["times_ms"] for record in entry["records"]])
    relative: np.ndarray = times / np.median(times, axis=1, keepdims=True)
    return relative


def round_points(name: str, band: int, parity: int, *, step: float = 0.0, at: int = 0) -> list[Point]:
    """Each recorded round as a run of 20 samples, one by every other configuration; the other 20 are its peer."""
    times = shared_rounds(name, band)
    own, peer = (np.median(times[start::2], axis=0) for start in (parity, 1 - parity))
    own[at:] *= 1 + step
    return points_of(own, peer=own / peer)
