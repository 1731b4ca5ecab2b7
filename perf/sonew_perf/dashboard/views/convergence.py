"""Training: the loss against steps, seconds and bytes of state, one race at a time."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from sonew_perf.dashboard.content import Content, Row
from sonew_perf.dashboard.views.older_training import renewed
from sonew_perf.dashboard.views.plain import even_places, number, text
from sonew_perf.errors import RecordError
from sonew_perf.records.machines import describe
from sonew_perf.records.model import Machine
from sonew_perf.training.race import Method, Race, Share, Standing, races
from sonew_perf.training.results import Conditions, Result, read_result
from sonew_perf.training.runs import PLAIN

MOST_LOSSES: Final = 200
TOLD: Final = frozenset({"band", *PLAIN})  # settings that the label says
PLACES: Final = 6  # after the point, of a share of columns
Settings = tuple[float, tuple[tuple[str, Any], ...]]  # learning rate and all others


def convergence(content: Content) -> Row:
    """The view `convergence`: races, those with a baseline first, of these the ones with the most methods, then the longest."""
    found = sorted(races(_entries(content)), key=_rank, reverse=True)
    return {"races": [_race(content, race) for race in found]}


def _rank(race: Race) -> tuple[bool, int, int]:
    held = any(standing.baseline is not None for standing in race.standings)
    return held, len(race.standings), race.conditions.steps


def _entries(content: Content) -> Iterator[Row]:
    """Training runs in the form of today; those of foreign records that lack what a curve needs are left out."""
    for entry in content.index.training_entries():
        run = content.run_by_id.get(entry["run"])
        whole = ({"machine": describe(run.machine)} if run else {}) | entry
        try:
            current = whole if "label" in whole else renewed(whole)
            if read_result(current) is not None:
                yield current
        except RecordError:
            continue


def _race(content: Content, race: Race) -> Row:
    shared = race.conditions
    baselines = {standing.baseline.label: standing.target for standing in race.standings if standing.baseline is not None}
    machine = Machine(id="", device=shared.device, type=shared.type, threads=shared.threads).name
    return {
        "id": hashlib.sha256(repr(shared).encode()).hexdigest()[:8],
        "task": shared.task,
        "data": shared.data,
        "steps": shared.steps,
        "schedule_steps": shared.schedule_steps,
        "lr_rule": shared.lr_rule,
        "batch": shared.batch,
        "machine": f"{machine}, {shared.flags}" if shared.flags else machine,
        "baselines": [{"label": label, "loss": number(loss)} for label, loss in baselines.items()],
        "lines": [line for standing in race.standings for line in _lines(race, standing)],
        "runs": [_run(content, race, result) for result in race.results],
    }


def _settings(result: Result) -> Settings:
    return result.lr, result.others


def _best(race: Race) -> dict[str, Settings]:
    """The settings that a method is judged at, by its label."""
    return {standing.method.label: _settings(standing.method.results[0]) for standing in race.standings}


def _lines(race: Race, standing: Standing) -> Iterator[Row]:
    """A line for each setting of a method, its best first; of a run that was repeated the last counts."""
    method = standing.method
    yield _line(race.conditions, method, method.results) | _judged(race.conditions, standing)
    others: dict[Settings, dict[int, Result]] = {}
    for result in race.results:
        if result.label == method.label and _settings(result) != _settings(method.results[0]):
            others.setdefault(_settings(result), {})[result.seed] = result
    for by_seed in others.values():
        yield _line(race.conditions, method, list(by_seed.values()))


def _line(shared: Conditions, method: Method, results: Sequence[Result]) -> Row:
    """Mean and range over the seeds, each recorded mean at its window's end."""
    first = results[0]
    places = even_places(len(first.means), MOST_LOSSES)
    means = [[result.means[place] for result in results] for place in places]
    finals = [result.entry["loss"] for result in results]
    ended, several = [] if None in finals else finals, len(results) > 1
    return {
        "label": method.label,
        "method": method.name,
        "band": dict(first.others).get("band"),
        "lr": first.lr,
        "settings": {name: text(value) for name, value in first.others if name not in TOLD and value},
        "seeds": [result.seed for result in results],
        "steps": [_end(shared, place) for place in places],
        "loss": [number(statistics.fmean(values)) for values in means],
        "low": [number(min(values)) for values in means] if several else None,
        "high": [number(max(values)) for values in means] if several else None,
        "seconds_per_step": number(method.step_s),
        "optimizer_seconds_per_step": number(method.optimizer_step_s),
        "state_bytes": number(max(result.state_bytes for result in results)),
        "final": number(statistics.fmean(ended)) if ended else None,
        "final_low": number(min(ended)) if ended else None,
        "final_high": number(max(ended)) if ended else None,
        "best": False,
    }


def _end(shared: Conditions, place: int) -> int:
    """The step at which a mean's window ends."""
    return min((place + 1) * shared.every, shared.steps)


def _judged(shared: Conditions, standing: Standing) -> Row:
    """What only a method at its best settings has."""
    reached = [steps for steps in standing.reached if steps is not None]
    there = bool(reached) and len(reached) == len(standing.reached)
    shares = {"steps": standing.steps, "wall": standing.wall, "optimizer": standing.optimizer}
    return {
        "best": True,
        "baseline": None if standing.baseline is None else standing.baseline.label,
        "reached": number(statistics.fmean(reached)) if there else None,
        "shares": {name: _share(share) for name, share in shares.items()},
        "fallback": _fallback(shared, standing.method.results),
    }


def _share(share: Share | None) -> Row | None:
    return None if share is None else {"mean": number(share.mean), "low": number(share.low), "high": number(share.high)}


def _fallback(shared: Conditions, results: Sequence[Result]) -> Row | None:
    """Shares of each layer's columns that fell back, mean over the seeds; None where nobody counted."""
    counted = [result.layers for result in results if result.layers]
    if not counted:
        return None
    layers = {name: [shares[name] for shares in counted if name in shares] for name in counted[0]}
    looks = min(len(shares) for seeds in layers.values() for shares in seeds)
    places = even_places(looks, MOST_LOSSES)
    means = {name: [round(statistics.fmean(shares[at] for shares in seeds), PLACES) for at in places] for name, seeds in layers.items()}
    return {"steps": [_end(shared, place) for place in places], "layers": means}


def _run(content: Content, race: Race, result: Result) -> Row:
    run = content.run_by_id.get(result.entry["run"])
    return {
        "label": result.label,
        "lr": result.lr,
        "seed": result.seed,
        "final": number(result.entry["loss"]),
        "seconds_per_step": number(result.step_s),
        "optimizer_seconds_per_step": number(result.optimizer_step_s),
        "state_bytes": number(result.state_bytes),
        "best": _settings(result) == _best(race)[result.label],
        "run": result.entry["run"],
        "run_name": (run.label or Path(run.path).stem) if run else result.entry["run"],
        "date": str(result.entry.get("date", run.date if run else "")),
    }
