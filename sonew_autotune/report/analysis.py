"""What follows from a study's records: gains, the best so far, what each parameter did. Pure functions, no Optuna."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sonew_autotune.measure import Ratio
from sonew_autotune.report.studies import Axes, Study
from sonew_autotune.search.results import Record
from sonew_autotune.trials.outcome import MEANINGS, Failure


@dataclass(frozen=True, slots=True)
class Timed:
    """A record that has a time: its place among the finished trials, from 1, and its gain over the default."""

    number: int
    record: Record
    gain: Ratio


@dataclass(frozen=True, slots=True)
class Failed:
    """A record that has none."""

    number: int
    record: Record
    failure: Failure


def timed(records: Sequence[Record]) -> list[Timed]:
    """The records with a time, in the order they finished."""
    return [Timed(number, record, record.ratio.inverse()) for number, record in enumerate(records, 1) if record.ratio is not None]


def failed(records: Sequence[Record]) -> list[Failed]:
    """The records without one."""
    return [Failed(number, record, record.failure) for number, record in enumerate(records, 1) if record.failure is not None]


def best(records: Sequence[Record]) -> Timed | None:
    """The record with the largest gain; of two alike the one that was timed to its end."""
    return max(timed(records), key=lambda each: (each.gain.median, not each.record.pruned), default=None)


def running_best(trials: Sequence[Timed]) -> list[float]:
    """The largest gain up to each trial."""
    found: list[float] = []
    for trial in trials:
        found.append(max(trial.gain.median, found[-1] if found else 0.0))
    return found


def failure_counts(failures: Iterable[Failed]) -> dict[str, int]:
    """How many failures there are of each kind, in the order of `outcome.MEANINGS`, kinds of other versions last."""
    counts = Counter(str(each.failure.kind) for each in failures)
    known = [str(kind) for kind in MEANINGS]
    return {kind: counts[kind] for kind in (*known, *sorted(set(counts) - set(known))) if counts[kind]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What became of the points with one value of a parameter.

    Attributes:
        gain: median over the timed ones. best: the largest. Both None where none was timed.
        timed, failed: how many.
    """

    value: int
    gain: float | None
    best: float | None
    timed: int
    failed: int


def effects(records: Sequence[Record], name: str, values: Iterable[int]) -> list[Effect]:
    """The effect of each value of a parameter, values that were never tried left out."""
    found = []
    for value in values:
        gains = [each.gain.median for each in timed(records) if each.record.config.get(name) == value]
        failures = sum(each.record.config.get(name) == value for each in failed(records))
        if gains or failures:
            middle = statistics.median(gains) if gains else None
            found.append(Effect(value=value, gain=middle, best=max(gains, default=None), timed=len(gains), failed=failures))
    return found


def spread_of_effects(records: Sequence[Record], name: str, values: Iterable[int]) -> float:
    """How far apart the medians of a parameter's values lie, as the logarithm of their quotient: an order where nothing better is known."""
    medians = [effect.gain for effect in effects(records, name, values) if effect.gain is not None]
    return math.log(max(medians) / min(medians)) if medians else 0.0


def leading_pair(study: Study, importances: Mapping[str, float]) -> tuple[str, str] | None:
    """The two parameters with the most to say, None where fewer than two were varied."""
    varied = {name: values for name, values in study.axes if len({record.config.get(name) for record in study.records}) > 1}
    ordered = sorted(
        varied, key=lambda name: (importances.get(name, 0.0), spread_of_effects(study.records, name, varied[name])), reverse=True
    )
    return (ordered[0], ordered[1]) if len(ordered) > 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The points that share two values: the largest gain among them, None where none was timed, and how many were tried."""

    gain: float | None
    tried: int
    failed: int


def cells(records: Sequence[Record], axes: Axes, pair: tuple[str, str]) -> list[list[Cell]]:
    """A cell per pair of values, rows by the second parameter, columns by the first."""
    values = dict(axes)

    def cell(first: int, second: int) -> Cell:
        here = [record for record in records if record.config.get(pair[0]) == first and record.config.get(pair[1]) == second]
        gains = [each.gain.median for each in timed(here)]
        return Cell(gain=max(gains, default=None), tried=len(here), failed=len(failed(here)))

    return [[cell(first, second) for first in values[pair[0]]] for second in values[pair[1]]]


def alone(records: Sequence[Record], default: Mapping[str, int], name: str, value: int) -> Timed | None:
    """The trial that differs from the default in one parameter only."""
    wanted = {**default, name: value}
    return next((each for each in timed(records) if each.record.config == wanted), None)


def ordered_config(config: Mapping[str, int], axes: Axes) -> dict[str, int]:
    """A configuration in the order of the axes."""
    names = [name for name, _ in axes if name in config]
    return {name: config[name] for name in (*names, *(name for name in config if name not in names))}
