"""`python -m tests.perf.dashboard.demo FOLDER`: a made store as every view in JSON, as the exported page, and as records to serve."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from sonew_perf.dashboard.content import Content
from sonew_perf.dashboard.documents import document, names
from sonew_perf.dashboard.export import LIMIT_BYTES, fitting
from sonew_perf.dashboard.views.meta import meta
from sonew_perf.dashboard.views.regressions import found_regressions
from sonew_perf.history import Ticket, analyse, done_points
from sonew_perf.history.regressions import History
from sonew_perf.records.model import Machine, Point, Problem, Run, Series
from tests.perf.dashboard.files import write_store
from tests.perf.dashboard.made import (
    BANDS,
    CPU,
    GPU,
    HOSTILE,
    SIZES,
    STEP,
    FakeIndex,
    a_point,
    a_run,
    a_series,
    a_training,
    comparison,
    content,
    entry,
    side,
)

RUNS = 60
NOW: Final = "2026-11-01T12:00:00+00:00"
BROKEN_AT = 41  # the run from which band 1 of the large tensor is 9 percent slower
PLANTED: Final = {  # by band and elements: from which run to which a step takes so many times as long
    (1, 4194304): (BROKEN_AT, RUNS, 1.09),
    (2, 4194304): (12, 27, 1.2),
    (4, 65536): (30, RUNS, 1.12),
    (0, 4194304): (36, RUNS, 0.9),
}


def samples(rng: random.Random, level: float, count: int = 21) -> list[float]:
    """Timings with a tail to the right, as machines give them."""
    return [level * (1 + abs(rng.gauss(0, 0.012)) + (0.2 if rng.random() < 0.03 else 0)) for _ in range(count)]


def steps(rng: random.Random, machine: Machine, runs: list[Run], speed: float) -> tuple[list[Series], list[Point]]:
    """Every band and size beside its peers, in every run."""
    found, points = [], []
    for elements, workload in SIZES:
        where: dict[str, Any] = {"elements": elements, "workload": workload, "machine": machine.id}
        base = speed * elements / 4194304
        peers = [a_series(case=case, **where) for case in ("AdamW fused", "AdamW foreach", "copy")]
        ours = [a_series(case=f"SONew band {band}", band=band, **where) for band in BANDS]
        phases = [a_series(kernel="direction", case=f"SONew band {band}", band=band, **where) for band in BANDS]
        found += [*peers, *ours, *phases]
        for place, run in enumerate(runs):
            day = 1 + rng.gauss(0, 0.006)
            levels = {"AdamW fused": 1.0, "AdamW foreach": 3.5, "copy": 0.29}
            points += [
                a_point(one, run, samples(rng, base * day * levels[one.case]), {"AdamW fused": levels[one.case]}, state_bytes=8 * elements)
                for one in peers
            ]
            for one, phase in zip(ours, phases, strict=True):
                assert one.band is not None
                first, end, times = PLANTED.get((one.band, elements), (0, 0, 1.0))
                slow = times if first <= place < end else 1.0
                ratio = STEP[one.band] * slow * (1 + rng.gauss(0, 0.004))
                if place == len(runs) - 1 and one.band == 4 and workload == "mnist-autoencoder":
                    points.append(Point(series=one.id, run=run.id, status="failed", reason=f"out of memory in {HOSTILE}"))
                    points.append(Point(series=phase.id, run=run.id, status="skipped", reason="its step failed"))
                    continue
                facts = {
                    "config": {"block": 1024, "segment": 16384 if place < 30 else 32768},
                    "provenance": "tuned entry (measured, user store, exact size bucket)",
                    "source_hash": "240d626549875e7e" if place < BROKEN_AT else "c8b97d268da4577d",
                    "state_bytes": 4 * (one.band + 2) * elements,
                }
                peers_of = {"AdamW fused": ratio, "copy": ratio / 0.29}
                points.append(a_point(one, run, samples(rng, base * day * ratio), peers_of, **facts))
                points.append(a_point(phase, run, samples(rng, 0.8 * base * day * ratio, 9), {"copy": 0.8 * ratio / 0.29}, **facts))
    return found, points


def training(rng: random.Random, run: Run) -> list[dict[str, Any]]:
    """Curves of three methods, learning rates and seeds, one of which diverges; and two of the older form, with a loss per step."""
    entries = []
    for method, band, floor, reach in (("sonew", 1, 52.0, 400), ("sonew", 4, 51.4, 420), ("adam", None, 53.7, 500)):
        for rate, factor in ((1.2e-3, 1.04), (3.6e-3, 1.0), (1.08e-2, 1.02)):
            for seed in (0, 1, 2):
                low = floor * factor * (1 + rng.gauss(0, 0.001))
                losses: list[float | None] = [
                    low + 490 * 2.718 ** (-step / reach) + 16 * (1 - step / 3000) + rng.gauss(0, 0.1) for step in range(60, 3001, 60)
                ]
                if lost := method == "adam" and rate > 1e-2 and seed == 2:
                    losses[30:] = [None] * 20
                found = a_training(run, method, band, rate, seed, losses, loss=None if lost else low)
                if band is not None:
                    layers = {f"{2 * layer}.weight": [rng.random() / (layer + 2) for _ in losses] for layer in range(10)}
                    found["fallback"] = {"layers": layers}
                entries.append(found)
    older = [90.0 * 2.718 ** (-step / 75) + 67 for step in range(300)]
    told = {"kind": "training run", "task": "autoencoder", "lr": 3.6e-3, "steps": 300, "batch": 1000, "wall_s": 44.8, "optimizer_s": 1.8}
    entries += [
        {**told, "method": method, "band": band, "seed": 0, "loss": 67.0, "losses": older, "date": run.date, "run": run.id}
        for method, band in (("sonew", 1), ("adamw", 0))
    ]
    return entries


@cache
def store() -> Content:
    """A store with everything a page must be able to draw."""
    rng = random.Random(7)
    cpu_runs = [a_run(number) for number in range(RUNS)]
    cpu_runs[20] = a_run(20, label=HOSTILE, branch="\u202egnp.exe", command="sonew-perf run --label '</script><script>alert(1)</script>'")
    cpu_runs[33] = a_run(33, label="release 0.1", pinned=True)
    cpu_runs[-1] = a_run(RUNS - 1, modified=True, diff="9f8e7d6c", label="unmerged work")
    gpu_runs = [a_run(number, GPU, command="sonew-perf run --device cuda", origin="baseline", pinned=True) for number in range(50, 56)]
    cpu_series, cpu_points = steps(rng, CPU, cpu_runs, 3.6)
    gpu_series, gpu_points = steps(rng, GPU, gpu_runs, 0.08)
    odd = a_series(case=f"SONew band 1 {HOSTILE}", band=1, variant=f"tuning={HOSTILE}")
    odd_points = [a_point(odd, run, samples(rng, 8.0), {HOSTILE: 2.0}, note=HOSTILE) for run in cpu_runs[18:24]]
    memory = a_series(measure="peak memory", unit="bytes", band=1)
    memory_points = [a_point(memory, run, [100677828.0 + 4096 * number]) for number, run in enumerate(cpu_runs[::6])]
    lone = a_series(kernel="import", case="sonew.torch", unit="s", framework="torch", workload="", elements=0, dtype="")
    lone_points = [a_point(lone, cpu_runs[-1], samples(rng, 1.31, 7))]
    runs = sorted([*cpu_runs, *gpu_runs], key=lambda run: (run.date, run.id))
    index = FakeIndex(
        runs,
        [*cpu_series, *gpu_series, odd, memory, lone],
        [*cpu_points, *gpu_points, *odd_points, *memory_points, *lone_points],
        problems=[Problem("/somewhere/runs/torn.json", "/somewhere/runs/torn.json is not JSON: Expecting ',' delimiter: line 4 column 1")],
        training=training(rng, cpu_runs[40]),
    )
    by_id = {run.id: run for run in runs}
    analyses = {series.id: analysed(index, series, by_id) for series in index.series()}
    made = content(index, comparisons=comparisons(), analyses=analyses, fresh=set(analyses))
    return replace(made, tickets=tickets(made))


def analysed(index: FakeIndex, series: Series, runs: dict[str, Run]) -> History:
    """What its history says, as the dashboard works it out."""
    points = done_points(index.points(series.id), runs)
    return History(series, points, analyse(points, runs, series))


def tickets(made: Content) -> dict[str, Ticket]:
    """Somebody accepted the smaller of the losses, and said why in hostile words."""
    name = min(found_regressions(made), key=lambda found: found.ms or 0.0).id
    note = f"pays for a direction that cannot overflow {HOSTILE}"
    return {name: Ticket(id=name, state="accepted", note=note, author="a maintainer", date="2026-10-29T09:00:00+00:00")}


def comparisons() -> list[dict[str, Any]]:
    """One of a commit with itself, and one with every verdict."""
    entries = [
        entry("SONew band 1", "SLOWER", 1.064, 7.26),
        entry("SONew band 2", "FASTER", 0.942, 9.4, band=2),
        entry("SONew band 4", "SAME", 1.003, 14.8, band=4),
        entry("SONew band 0", "UNSURE", 1.018, 5.4, band=0),
        entry("AdamW fused", "SAME", 0.998, 3.6, band=None),
        entry("SONew band 4", "UNSURE", 1.041, 0.31, band=4, elements=65536),
        entry("SONew band 8", "NO-DATA", None, None, band=8),
        entry(f"SONew band 1 {HOSTILE}", "SAME", 1.0, 8.0, variant=f"tuning={HOSTILE}"),
    ]
    quiet = [entry(f"SONew band {band}", "SAME", 1.0 + 0.001 * band, 5.0 + 2 * band, band=band) for band in BANDS]
    aa = comparison(
        "20261030T120000Z-aa",
        quiet,
        mode="A/A",
        title="main against itself",
        noise_floor=0.011,
        base=side("main", "b" * 40),
    )
    return [aa, comparison("20261101T120000Z-ab", entries)]


def main(folder: Path) -> None:
    """Write the files."""
    made = store()
    views = {name: document(made, name) for name in names(made)}
    views["meta"] = meta(made, mode="server", generated=NOW)
    for name, value in views.items():
        path = folder / "views" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, allow_nan=False), encoding="utf-8")
    page, kept = fitting(made, LIMIT_BYTES, NOW)
    (folder / "export.html").write_text(page, encoding="utf-8")
    write_store(made, folder / "store")
    print(f"{len(views)} views in {folder / 'views'}, {folder / 'export.html'} ({kept.rule}), and as records in {folder / 'store'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
