"""The search of a variant's hyperparameters, in a study of `sonew_autotune` that resumes and ends bad trials early.

A trial is a run with the first seed; its value is the mean training loss of the run's last mean. Every variant gets the same number of
trials: finished, pruned and diverged ones count alike. TPE proposes them; the first is the reference.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

import sonew
from sonew_perf.errors import MeasurementError
from sonew_perf.training.asked import Asked, make_run, read_setting, settings_of
from sonew_perf.training.found import PRUNE_AFTER_TRIALS, SAMPLER, Found, Report, Trial
from sonew_perf.training.loop import mean_every
from sonew_perf.training.methods import METHODS
from sonew_perf.training.running import UNFINISHED, train_one
from sonew_perf.training.runs import Run
from sonew_perf.training.settings import RANGES, Range, Settings
from sonew_perf.training.tasks.data import Data
from sonew_perf.training.tasks.table import TASKS

if TYPE_CHECKING:
    from sonew_autotune.search.minimizing import Function, Hear, Tried

PROTOCOL: Final = 1  # of the trials: raise it when their values no longer compare with older ones
PRUNE_AFTER_SHARE: Final = 0.25  # of a run's means: the rate's warm-up says little of how a run ends
DIGITS: Final = 4  # of a setting: finer ones change no loss, and a person can repeat them


@dataclass(frozen=True, slots=True, kw_only=True)
class _Space:
    """What is varied, and everything else that a value depends on.

    Attributes:
        base: the run with the reference settings. searched: ranges by setting. means: of a run.
    """

    base: Run
    searched: Mapping[str, Range]
    means: int

    def point(self, settings: Settings) -> dict[str, float]:
        """The settings as the search sees them, clipped to the ranges."""
        seen = {name: 1 - getattr(settings, name) if at.complement else getattr(settings, name) for name, at in self.searched.items()}
        return {name: min(max(float(value), self.searched[name].low), self.searched[name].high) for name, value in seen.items()}

    def settings(self, point: Mapping[str, float]) -> dict[str, float]:
        """The settings of a point, those that are searched."""
        rounded = {name: float(f"{value:.{DIGITS}g}") for name, value in point.items()}
        return {name: round(1 - value, 12) if self.searched[name].complement else value for name, value in rounded.items()}

    def run(self, point: Mapping[str, float]) -> Run:
        """The run of a point."""
        changed: dict[str, Any] = dict(self.settings(point))
        return replace(self.base, settings=replace(self.base.settings, **changed))

    def trial(self, tried: Tried) -> Trial:
        """A trial of the study as one of ours."""
        return Trial(
            settings=self.settings(tried.point),
            outcome=tried.outcome,
            value=tried.value,
            means=tried.heard,
            seconds=tried.seconds,
            date=tried.date,
        )


def _space(asked: Asked, data: Data, method: str, band: int | None) -> _Space:
    """What is varied: the method's searched settings, but for those that were given."""
    given = {read_setting(text)[0] for text in asked.given}
    searched = {name: RANGES[asked.ranges][name] for name in METHODS[method].searched if name not in given}
    run = make_run(asked, data, method, settings_of(asked, method, band), asked.seeds[0])
    means = -(-run.steps // mean_every(TASKS[run.task], data, run.batch))
    return _Space(base=run, searched=searched, means=means)


def _subject(space: _Space, asked: Asked, data: Data, device: torch.device) -> dict[str, Any]:
    """Everything that a trial's value depends on."""
    return {
        "protocol": PROTOCOL,
        "sonew": sonew.__version__,
        **space.base.describe(),
        "data": data.describe(),
        "device": device.type,
        "ranges": {name: asdict(at) for name, at in space.searched.items()} | {"name": asked.ranges},
        "fixed": space.base.fixed(space.searched),
    }


def _study_name(run: Run, subject: Mapping[str, Any]) -> str:
    """Of the subject, as a file's name."""
    digest = hashlib.sha256(json.dumps(subject, sort_keys=True).encode()).hexdigest()[:16]
    variant = run.method if run.band is None else f"{run.method}-band{run.band}"
    return f"{run.task}-{variant}-{run.precision}-{run.framework}-{digest}"


def _warn_of_clipping(space: _Space, first: Mapping[str, float], warn: Callable[[str], None]) -> None:
    """Say which reference settings lie outside the ranges."""
    start, label = space.settings(first), space.base.label
    for name, at in space.searched.items():
        reference, used = getattr(space.base.settings, name), start[name]
        if not math.isclose(reference, used, rel_tol=10**-DIGITS * 5):
            low, high = (1 - at.high, 1 - at.low) if at.complement else (at.low, at.high)
            warn(f"{label}: the reference's {name}={reference:g} lies outside [{low:g}, {high:g}]: the search begins at {used:g}")


def _last_mean(run: Run, data: Data, device: torch.device, hear: Hear) -> float:
    """Train; the last mean loss, nan where training diverged."""
    last = train_one(run, data, device, counters=False, told=hear)["losses"][-1]
    return math.nan if last is None else float(last)


def _trained(space: _Space, data: Data, device: torch.device) -> Function:
    """Training as a function of a point."""
    from sonew_autotune.search.minimizing import PrunedError  # noqa: PLC0415  # it loads Optuna

    def train(point: Mapping[str, float], hear: Hear) -> float:
        def hear_unless_over(mean: int, loss: float) -> None:
            try:
                hear(mean, loss)
            except PrunedError:
                if mean < space.means - 1:
                    raise

        return _last_mean(space.run(point), data, device, hear_unless_over)

    return train


def search(asked: Asked, data: Data, device: torch.device, variant: tuple[str, int | None], folder: Path, report: Report) -> Found:
    """Search a variant's settings, or go on with an earlier search of the same.

    Args:
        asked: what to train; `search` trials within `ranges`, with the first seed. Settings that were given are not varied.
        data: of its task. device: where. variant: method and band. folder: the store's; the study lies in it.
        report: hears of it.

    Raises:
        InvalidConfigError: the method cannot be trained so.
        DataError: the data does not fill a batch.
        LockedError: another process is searching the same variant.
        MeasurementError: no trial came to its end.
    """
    from sonew_autotune.search.minimizing import Axis, Pruning, best_of, minimize, read_trials  # noqa: PLC0415  # it loads Optuna
    from sonew_autotune.search.opening import open_study  # noqa: PLC0415  # as above

    space = _space(asked, data, *variant)
    subject = _subject(space, asked, data, device)
    name, warm_up = _study_name(space.base, subject), math.ceil(PRUNE_AFTER_SHARE * space.means)
    wanted, first = asked.search or 0, space.point(space.base.settings)
    _warn_of_clipping(space, first, report.warn)
    axes = {axis: Axis(at.low, at.high) for axis, at in space.searched.items()}
    pruning, seed = Pruning(after_trials=PRUNE_AFTER_TRIALS, after_steps=warm_up), space.base.seed
    with open_study(folder / UNFINISHED, name, sampler=SAMPLER, pruning=pruning, seed=seed, subject=subject, warn=report.warn) as study:
        known = read_trials(study, axes)[:wanted]
        report.resume([space.trial(tried) for tried in known])
        ended = minimize(
            study,
            axes,
            _trained(space, data, device),
            trials=wanted,
            first=[first],
            told=lambda tried: report.trial(space.trial(tried)),
            hears=report.mean,
        )
    best = best_of(ended)
    if best is None or best.value is None:
        label = space.base.label
        msg = f"none of the {len(ended)} trials of {label} came to its end: they diverged. Pass a larger --search or other --ranges."
        raise MeasurementError(msg)
    return Found(
        run=space.run(best.point),
        value=best.value,
        trials=tuple(map(space.trial, ended)),
        fresh=len(ended) - len(known),
        study=name,
        searched=space.searched,
        warm_up=warm_up,
    )
