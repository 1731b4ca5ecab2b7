"""Steps and seconds to a loss: what share of the baseline's each method needs to reach the baseline's best. No framework is loaded here.

The target is read off the curves of the recorded training losses: the mean over the seeds of the baseline's last one, at its best settings.
A run is there where its curve is first at or below the target; each mean stands at its window's end, and lines join them. The baseline
itself is there where the mean of its seeds' curves is.

Other work on the machine only adds to times. So the optimizer's seconds are the least of the medians of a method's runs, and the rest of a
step, which is the same work for every method of a framework and precision, the least over all of them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sonew_perf.training.results import Conditions, Result, read_result
from sonew_perf.training.runs import BASELINES
from sonew_perf.training.summary import Curve, curves


@dataclass(frozen=True, slots=True)
class Share:
    """A share of what the baseline needs: mean over the seeds, and their range."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method at its best settings.

    Attributes:
        label: as tables name it. name: key of `methods.METHODS`.
        grid: its learning rates, the other settings as at the best one.
        results: at the best settings, by seed.
        step_s, optimizer_step_s: seconds of a step, and of the optimizer in it (see above). state_bytes: of the optimizer.
        fallback: the largest share of a layer's columns that fell back at the end of a run; None where nobody counted.
    """

    label: str
    name: str
    grid: Curve
    results: tuple[Result, ...]
    step_s: float
    optimizer_step_s: float
    state_bytes: int
    fallback: float | None

    @property
    def loss(self) -> float:
        """Mean of the results over the seeds; inf where one diverged."""
        return self.grid.best.mean


@dataclass(frozen=True, slots=True)
class Standing:
    """How a method did.

    Attributes:
        method: at its best settings. baseline: what it is held against; None where that was not run, or diverged.
        target: the baseline's best final training loss, inf without one. reached: steps to it, seed by seed, None: never; of the baseline
            itself one number.
        steps, wall, optimizer: shares of what the baseline needs; None where not every seed gets there.
    """

    method: Method
    baseline: Method | None = None
    target: float = math.inf
    reached: tuple[float | None, ...] = ()
    steps: Share | None = None
    wall: Share | None = None
    optimizer: Share | None = None


@dataclass(frozen=True, slots=True)
class Race:
    """Training runs that may be held against each other.

    Attributes:
        conditions: what they share. results: all of them. standings: one per method, in the order of the runs.
    """

    conditions: Conditions
    results: tuple[Result, ...]
    standings: tuple[Standing, ...]


def steps_to(target: float, means: Sequence[float], conditions: Conditions) -> float | None:
    """Steps after which a curve is first at or below the target; None: never.

    Args:
        target: a loss. means: the curve, each the mean over a window of `conditions.every` steps; the last window may be shorter.
    """
    place, above = 0.0, math.inf
    for number, mean in enumerate(means, start=1):
        end = float(min(number * conditions.every, conditions.steps))
        if mean <= target:
            return end if math.isinf(above) else place + (end - place) * (above - target) / (above - mean)
        place, above = end, mean
    return None


def _best(results: Sequence[Result]) -> tuple[Curve, tuple[Result, ...]]:
    """The learning rates around the best settings, and the results there.

    Settings compete where they have as many seeds as any of the method: a lucky one is not the best. Of a run that was repeated the last
    counts.
    """
    table: dict[tuple[tuple[tuple[str, Any], ...], float], dict[int, Result]] = {}
    for result in results:
        table.setdefault((result.others, result.lr), {})[result.seed] = result
    most = max(map(len, table.values()))
    families: dict[tuple[tuple[str, Any], ...], list[Result]] = {}
    for (others, _), by_seed in table.items():
        if len(by_seed) == most:
            families.setdefault(others, []).extend(by_seed.values())
    grids = [(curves(result.entry for result in family)[0], family) for family in families.values()]
    grid, family = min(grids, key=lambda pair: pair[0].best.mean)
    return grid, tuple(sorted((result for result in family if result.lr == grid.best.lr), key=lambda result: result.seed))


def _gradient_s(results: Iterable[Result]) -> dict[tuple[str, str], float]:
    """Seconds of a step without its optimizer, by framework and precision."""
    least: dict[tuple[str, str], float] = {}
    for result in results:
        kind, own = (result.framework, result.precision), result.step_s - result.optimizer_step_s
        least[kind] = min(own, least.get(kind, own))
    return least


def _method(results: Sequence[Result], gradient_s: Mapping[tuple[str, str], float]) -> Method:
    grid, chosen = _best(results)
    optimizer_s = min(result.optimizer_step_s for result in results)
    return Method(
        label=grid.label,
        name=grid.method,
        grid=grid,
        results=chosen,
        step_s=gradient_s[chosen[0].framework, chosen[0].precision] + optimizer_s,
        optimizer_step_s=optimizer_s,
        state_bytes=max(result.state_bytes for result in chosen),
        fallback=max((result.fallback for result in chosen if result.fallback is not None), default=None),
    )


def _share(per_step: float, reached: Sequence[float], whole: float) -> Share:
    shares = [per_step * steps / whole for steps in reached]
    return Share(statistics.fmean(shares), min(shares), max(shares))


def _standing(method: Method, baseline: Method | None, conditions: Conditions) -> Standing:
    if baseline is None:
        return Standing(method)
    curve = [statistics.fmean(means) for means in zip(*(result.means for result in baseline.results), strict=True)]
    target = curve[-1]
    whole = steps_to(target, curve, conditions)
    if math.isinf(target) or whole is None:
        return Standing(method)
    reached = (whole,) if method is baseline else tuple(steps_to(target, result.means, conditions) for result in method.results)
    there = [steps for steps in reached if steps is not None]
    if len(there) < len(reached):
        return Standing(method, baseline, target, reached)
    ratios = 1.0, method.step_s / baseline.step_s, method.optimizer_step_s / baseline.optimizer_step_s
    return Standing(method, baseline, target, reached, *(_share(ratio, there, whole) for ratio in ratios))


def _baseline(method: Method, plain: Sequence[Method]) -> Method | None:
    """What the method is held against: of its framework in full precision, else in its own, else of the other in full precision."""
    ours = method.results[0]
    for framework, precision in ((ours.framework, "fp32"), (ours.framework, ours.precision), (None, "fp32")):
        for other in plain:
            theirs = other.results[0]
            if theirs.precision == precision and framework in (None, theirs.framework):
                return other
    return None


def _race(conditions: Conditions, results: Sequence[Result]) -> Race:
    by_label: dict[str, list[Result]] = {}
    for result in results:
        by_label.setdefault(result.label, []).append(result)
    gradient_s = _gradient_s(results)
    methods = [_method(members, gradient_s) for members in by_label.values()]
    plain = sorted((method for method in methods if method.name in BASELINES), key=lambda method: BASELINES.index(method.name))
    standings = [_standing(method, _baseline(method, plain), conditions) for method in methods]
    return Race(conditions, tuple(results), tuple(standings))


def races(entries: Iterable[Mapping[str, Any]]) -> list[Race]:
    """The training runs of these entries by what may be held against each other: task, data, length, batch and machine.

    A method is held against the baseline of its own framework in float32, else in its own precision, else of the other framework.

    Args:
        entries: of any kind; others, and training runs of the older form, are left out.

    Raises:
        RecordError: an entry is not what it should be.
    """
    groups: dict[Conditions, list[Result]] = {}
    for entry in entries:
        if (result := read_result(entry)) is not None:
            groups.setdefault(result.conditions, []).append(result)
    return [_race(conditions, results) for conditions, results in groups.items()]
