"""The least value of a function of real numbers: a search that resumes, and ends trials early that promise little.

The function is somebody else's: a training run, for instance. What counts is the outcome that a trial carries, not its state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeGuard

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.trial import FrozenTrial, Trial, TrialState

from sonew_autotune.search.presence import end_trial

FINISHED: Final = "finished"
PRUNED: Final = "pruned"
DIVERGED: Final = "diverged"
OUTCOMES: Final = (FINISHED, PRUNED, DIVERGED)
OUTCOME: Final = "outcome"  # the attribute in which a trial carries what came of it
QUEUED: Final = "fixed_params"  # where Optuna keeps a queued point until the trial has begun
DEATHS: Final = "deaths"
MAX_DEATHS: Final = 3  # processes that may die at a point before it is given up

Hear = Callable[[int, float], None]
Function = Callable[[Mapping[str, float], Hear], float]


class PrunedError(Exception):
    """A trial promises little: it goes through the function that is searched and ends it."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Where a number is looked for, logarithmically; 0 < low < high."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """When a trial is ended early: its least value so far is above the median of the finished trials' values at the same step.

    Attributes:
        after_trials: finished trials before the first is pruned. after_steps: of a trial, before it may be pruned.
    """

    after_trials: int = 5
    after_steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A trial that came to an end.

    Attributes:
        point: by axis. outcome: one of `OUTCOMES`.
        value: of the function; of a pruned trial the last that was heard of, None where nothing finite was.
        heard: how many values on the way. seconds: it took. date: of its end, ISO 8601.
    """

    point: Mapping[str, float]
    outcome: str
    value: float | None
    heard: int
    seconds: float
    date: str


def make_pruner(pruning: Pruning | None) -> BasePruner:
    """Optuna's, None: one that prunes nothing."""
    if pruning is None:
        return NopPruner()
    return MedianPruner(n_startup_trials=pruning.after_trials, n_warmup_steps=pruning.after_steps)


def take_up_again(study: optuna.Study, dead: FrozenTrial) -> None:
    """A process died in this trial: its point is tried again, unless too many did."""
    deaths = 1 + int(dead.user_attrs.get(DEATHS, 0))
    point = dead.params or dead.system_attrs.get(QUEUED)
    if OUTCOME not in dead.user_attrs and point and deaths < MAX_DEATHS:
        study.enqueue_trial(point, user_attrs={DEATHS: deaths})


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _tried(trial: FrozenTrial, axes: Mapping[str, Axis]) -> Tried | None:
    """What came of a trial; None where it has not ended, or carries something else."""
    kept = trial.user_attrs.get(OUTCOME)
    if not isinstance(kept, dict) or set(trial.params) != set(axes) or kept.get("outcome") not in OUTCOMES:
        return None
    value, heard, seconds, date = (kept.get(name) for name in ("value", "heard", "seconds", "date"))
    if not (_is_number(value) or (value is None and kept["outcome"] != FINISHED)):
        return None
    if not (isinstance(heard, int) and _is_number(seconds) and isinstance(date, str)):
        return None
    return Tried(point=dict(trial.params), outcome=kept["outcome"], value=value, heard=heard, seconds=seconds, date=date)


def read_trials(study: optuna.Study, axes: Mapping[str, Axis]) -> list[Tried]:
    """Every trial that came to an end, in the order in which they began."""
    return [tried for trial in study.get_trials(deepcopy=False) if (tried := _tried(trial, axes)) is not None]


def best_of(trials: Sequence[Tried]) -> Tried | None:
    """The finished trial with the least value; None where none finished. Pruned ones ended elsewhere and do not compare."""
    finished = [trial for trial in trials if trial.outcome == FINISHED]
    return min(finished, key=lambda trial: trial.value if trial.value is not None else math.inf, default=None)


class _Heard:
    """The values of a trial on its way; ends it where they promise little."""

    def __init__(self, trial: Trial, told: Hear) -> None:
        self._trial, self._told = trial, told
        self.count = 0
        self.last: float | None = None

    def __call__(self, step: int, value: float) -> None:
        self.count += 1
        self._told(step, value)
        if not math.isfinite(value):
            return
        self.last = value
        self._trial.report(value, step)
        if self._trial.should_prune():
            raise PrunedError


@contextmanager
def _given_back(study: optuna.Study, trial: Trial) -> Iterator[None]:
    """Inside, an exception (Ctrl-C) ends the trial without an outcome; its point is the first to be tried again."""
    try:
        yield
    except BaseException:
        if end_trial(study, trial.number) and OUTCOME not in trial.user_attrs:
            study.enqueue_trial(trial.params)
        raise


def _evaluate(trial: Trial, function: Function, told: Hear) -> Tried:
    heard, began = _Heard(trial, told), time.monotonic()
    try:
        value: float | None = function(trial.params, heard)
        outcome = FINISHED if _is_number(value) else DIVERGED
    except PrunedError:
        value, outcome = heard.last, PRUNED
    return Tried(
        point=trial.params,
        outcome=outcome,
        value=None if outcome == DIVERGED else value,
        heard=heard.count,
        seconds=round(time.monotonic() - began, 3),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def minimize(
    study: optuna.Study,
    axes: Mapping[str, Axis],
    function: Function,
    *,
    trials: int,
    first: Sequence[Mapping[str, float]] = (),
    told: Callable[[Tried], None] = lambda _: None,
    hears: Hear = lambda _step, _value: None,
) -> list[Tried]:
    """Try points until that many trials came to an end, earlier runs counted in.

    A diverged trial teaches the sampler as a pruned one does, and is nothing that others are compared with.

    Args:
        study: of `opening.open_study`. axes: where to look.
        function: value of (point, hear); it calls `hear` with the number of a step and the value there, and lets a `PrunedError`
            through. A value that is not finite: it diverged. Any other exception ends the search and leaves the finished trials.
        trials: finished, pruned and diverged ones together.
        first: points to try first; each lies inside the axes.
        told: called with each new trial. hears: called with the steps and values of the trial that is under way.

    Returns:
        As many trials as were wanted, in the order in which they began; of a study with more the first.
    """
    distributions: dict[str, BaseDistribution] = {name: FloatDistribution(axis.low, axis.high, log=True) for name, axis in axes.items()}
    for point in first:
        study.enqueue_trial(dict(point), skip_if_exists=True)
    while len(read_trials(study, axes)) < trials:
        trial = study.ask(distributions)
        with _given_back(study, trial):
            tried = _evaluate(trial, function, hears)
            trial.set_user_attr(OUTCOME, _kept(tried))  # before the state: a death in between loses nothing
            study.tell(trial, tried.value if tried.outcome == FINISHED else None, _state(tried))
        told(tried)
    return read_trials(study, axes)[:trials]


def _kept(tried: Tried) -> dict[str, Any]:
    """What the trial carries; Optuna keeps its point."""
    return {name: value for name, value in asdict(tried).items() if name != "point"}


def _state(tried: Tried) -> TrialState:
    return TrialState.COMPLETE if tried.outcome == FINISHED else TrialState.PRUNED
