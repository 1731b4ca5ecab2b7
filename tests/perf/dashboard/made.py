"""A small store made by hand: two machines, runs with noise and a step, failures, hostile names, comparisons and training."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sonew_perf.dashboard.content import Content
from sonew_perf.history import Analysis, Change, Level, done_points
from sonew_perf.history.regressions import History
from sonew_perf.history.tickets import Ticket
from sonew_perf.records.model import Machine, Point, Problem, Run, Series

HOSTILE: Final = "<img src=x onerror=alert(1)>"
CPU: Final = Machine(
    id="0123456789ab",
    device="Example CPU",
    type="cpu",
    threads=2,
    details={"torch": "2.13.0", "python": "3.11.7", "governor": "performance"},
)
GPU: Final = Machine(id="ba9876543210", device="Example GPU", type="cuda", threads=16, details={"torch": "2.13.0", "driver": "580.1"})
START: Final = datetime(2026, 9, 1, 12, tzinfo=UTC)
BANDS: Final = (0, 1, 2, 4)
SIZES: Final = ((65536, "one tensor"), (4194304, "one tensor"), (2837314, "mnist-autoencoder"))
STEP: Final = {0: 1.5, 1: 2.0, 2: 2.6, 4: 4.1}  # times fused AdamW


class FakeIndex:
    """What `records.index.Index` says of a store, from lists."""

    def __init__(
        self,
        runs: Sequence[Run] = (),
        series: Sequence[Series] = (),
        points: Sequence[Point] = (),
        *,
        problems: Sequence[Problem] = (),
        training: Sequence[dict[str, Any]] = (),
    ) -> None:
        self._runs, self._series, self._problems, self._training = runs, series, problems, training
        order = {run.id: place for place, run in enumerate(runs)}
        self._points = sorted(points, key=lambda point: order[point.run])

    def runs(self) -> list[Run]:
        return list(self._runs)

    def series(self) -> list[Series]:
        return list(self._series)

    def points(self, series_id: str) -> list[Point]:
        return [point for point in self._points if point.series == series_id]

    def summary_points(self, series_id: str | None = None) -> list[Point]:
        return [point for point in self._points if series_id in {None, point.series}]

    def last_points(self) -> dict[str, Point]:
        return {point.series: point for point in self._points if point.status == "done"}

    def newest_points(self) -> dict[str, Point]:
        return {point.series: point for point in self._points}

    def problems(self) -> list[Problem]:
        return list(self._problems)

    def training_entries(self) -> list[dict[str, Any]]:
        return list(self._training)


def a_series(kernel: str = "step", case: str = "SONew band 1", **fields: Any) -> Series:
    """One tensor of 4 Mi elements on the CPU, unless told otherwise."""
    defaults: dict[str, Any] = {
        "measure": "time",
        "unit": "ms",
        "framework": "torch",
        "workload": "one tensor",
        "elements": 4194304,
        "dtype": "float32",
        "band": None,
        "variant": "",
        "machine": CPU.id,
    }
    return Series(kernel=kernel, case=case, **defaults | fields)


def a_run(number: int, machine: Machine = CPU, **fields: Any) -> Run:
    """The run of one day."""
    date = START + timedelta(days=number)
    defaults: dict[str, Any] = {
        "label": f"nightly {number}",
        "command": "sonew-perf run --rounds 21",
        "commit": f"{number:040x}",
        "commit_date": date.isoformat(),
        "branch": "main",
        "modified": False,
        "load": 0.5,
        "seconds": 93.5,
        "path": f"/somewhere/runs/{number}.json",
    }
    return Run(id=f"{date:%Y%m%dT%H%M%SZ}-{machine.id[:8]}", date=date.isoformat(), machine=machine, **defaults | fields)


def a_point(series: Series, run: Run, samples: Sequence[float], against: dict[str, float] | None = None, **facts: Any) -> Point:
    """A result; a ratio's interval is one percent to both sides."""
    ratios = {peer: {"median": ratio, "low": ratio * 0.99, "high": ratio * 1.01} for peer, ratio in (against or {}).items()}
    quartiles = statistics.quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else [samples[0]] * 3
    return Point(
        series=series.id,
        run=run.id,
        samples=tuple(samples),
        median=statistics.median(samples),
        q1=quartiles[0],
        q3=quartiles[2],
        against=ratios,
        facts=facts,
    )


NAMES = {"sonew": "SONew", "adam": "Adam"}


def a_training(
    run: Run, method: str, band: int | None, lr: float, seed: int, losses: Sequence[float | None], **fields: Any
) -> dict[str, Any]:
    """An entry of a training run with a mean loss of every 60 steps."""
    own = {} if band is None else {"band": band, "chain": "tensor", "eps_rel": 0.0}
    optimizer_s = 0.02 if band is None else 0.02 * (band + 1)
    told: dict[str, Any] = {
        "kind": "training run",
        "task": "autoencoder",
        "framework": "torch",
        "precision": "fp32",
        "method": method,
        "label": NAMES[method] if band is None else f"{NAMES[method]} band {band}",
        "band": band,
        "lr": lr,
        "lr_rule": "epochs",
        "schedule_steps": 60 * len(losses),
        "seed": seed,
        "steps": 60 * len(losses),
        "batch": 1000,
        "hyper": {"lr": lr, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, **own},
        "data": {"name": "MNIST", "examples": 60000, "sha256": "ba" * 32},
        "load_before": 0.5,
        "loss": losses[-1],
        "losses": list(losses),
        "losses_every": 60,
        "step_s": 0.08 + optimizer_s,
        "optimizer_step_s": optimizer_s,
        "state_bytes": 4 * 2837314 * (2 if band is None else band + 2),
        "fallback": None,
        "plans": [],
        "date": run.date,
        "run": run.id,
    }
    return told | fields


def content(index: FakeIndex, **parts: Any) -> Content:
    """The content of a made index."""
    return Content(index=index, revision="made-1", problems=index.problems(), **parts)


def a_history(index: FakeIndex, series: Series, *, place: int, ratio: float, low: float, bisect: str = "") -> History:
    """A series with one change of level, at a place among its done points."""
    runs = {run.id: run for run in index.runs()}
    points = done_points(index.points(series.id), runs)
    good, bad = (runs[points[number].run] for number in (place - 1, place))
    change = Change(
        index=place,
        ratio=ratio,
        last_good=good.id,
        first_bad=bad.id,
        good_commit=good.commit,
        bad_commit=bad.commit,
        bisect=bisect,
        direction="slower" if ratio > 1 else "faster",
    )
    levels = Level(0, place - 1, low, 0.01), Level(place, len(points) - 1, low * ratio, 0.012)
    return History(series, points, Analysis(levels, (change,), 0.031, judged=True))


def entry(case: str, verdict: str, ratio: float | None, base_ms: float | None, **fields: Any) -> dict[str, Any]:
    """One entry of a comparison's record."""
    known = ratio is not None and base_ms is not None
    rng = random.Random(case)
    return {
        "case": case,
        "kernel": "step",
        "framework": "torch",
        "workload": "one tensor",
        "elements": 4194304,
        "dtype": "float32",
        "band": 1,
        "variant": "",
        "verdict": verdict,
        "ratio": ratio,
        "low": ratio * 0.985 if ratio is not None else None,
        "high": ratio * 1.015 if ratio is not None else None,
        "p": 0.0004 if verdict in {"SLOWER", "FASTER"} else 0.31,
        "p_adjusted": 0.0011 if verdict in {"SLOWER", "FASTER"} else 0.52,
        "detectable": 0.013,
        "base_ms": base_ms,
        "head_ms": base_ms * ratio if ratio is not None and base_ms is not None else None,
        "ratios": [ratio * rng.gauss(1, 0.012) for _ in range(33)] if ratio is not None else [],
        "launches": [11, 11, 11] if ratio is not None else [],
        "plans": "",
        "confirmed": True if verdict == "SLOWER" else None,
        "reason": "" if known else "the kernel needs a device with fp16 atomics",
        **fields,
    }


def side(spec: str, commit: str) -> dict[str, Any]:
    """A side of a comparison."""
    known: dict[str, Any] = {"spec": spec, "title": spec, "commit": commit, "commit_date": START.isoformat()}
    return known | {"modified": False, "diff": "", "tuning": "on", "store": ""}


def comparison(name: str, entries: Sequence[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """A comparison's record."""
    said: dict[str, Any] = {
        "id": name,
        "date": (START + timedelta(days=60)).isoformat(),
        "title": "main~3 against main",
        "base": side("main~3", "a" * 40),
        "head": side("main", "b" * 40),
        "machine": {"device": CPU.device, "type": CPU.type, "threads": CPU.threads},
        "rounds": 33,
        "launches": 3,
        "seconds": 512.0,
        "load": 0.4,
        "planted_slowdown": 0.0,
        "tolerance": 0.02,
        "fail_on": 0.05,
        "mode": "A/B",
        "command": "sonew-perf compare main~3 main",
        "noise_floor": None,
        "not_interleaved": False,
        **fields,
    }
    return {"schema_version": 1, "comparison": said, "entries": list(entries)}


ADAMW, COPY = a_series(case="AdamW fused"), a_series(case="copy")
BAND_1, BAND_4 = a_series(case="SONew band 1", band=1), a_series(case="SONew band 4", band=4)
SMALL = a_series(case="SONew band 1", band=1, elements=65536)
UNTUNED = a_series(case="SONew band 1", band=1, variant="tuning=off")
DIRECTION = a_series("direction", "SONew band 1", band=1)


def small_store() -> FakeIndex:
    """Three runs: band 1 in all, band 4 fails in the last, the small size in the first only; the copy in the first two."""
    runs = [a_run(number) for number in range(3)]
    points = []
    for place, run in enumerate(runs):
        points.append(a_point(ADAMW, run, [2.0, 2.0, 2.2], {"AdamW fused": 1.0}))
        points.append(a_point(BAND_1, run, [4.0 + place, 5.0 + place, 6.0 + place], {"AdamW fused": 2.5 + place}, state_bytes=12))
        points.append(a_point(UNTUNED, run, [9.0], {"AdamW fused": 4.5}))
        if place < 2:
            points.append(a_point(COPY, run, [0.5 + place]))
            points.append(a_point(BAND_4, run, [8.0], {"AdamW fused": 4.0}))
            points.append(Point(series=DIRECTION.id, run=run.id, median=4.0))
    points.append(a_point(SMALL, runs[0], [0.1], {"AdamW fused": 1.002}))
    points.append(Point(series=BAND_4.id, run=runs[2].id, status="failed", reason="out of memory"))
    points.append(Point(series=COPY.id, run=runs[2].id, status="skipped", reason="no room"))
    series = [ADAMW, COPY, BAND_1, BAND_4, SMALL, UNTUNED, DIRECTION]
    return FakeIndex(runs, series, points, problems=[Problem("/store/runs/torn.json", "/store/runs/torn.json is no record: torn")])


def with_change(**ticket: Any) -> Content:
    """The store with a change of band 1 at its last run."""
    index = small_store()
    name = f"{BAND_1.id}-{index.runs()[2].id}"
    history = a_history(index, BAND_1, place=2, ratio=1.4, low=5.0)
    return content(index, analyses={BAND_1.id: history}, tickets={name: Ticket(id=name, **ticket)} if ticket else {})
