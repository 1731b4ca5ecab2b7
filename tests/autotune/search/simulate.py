"""Whole searches on a recorded landscape, in memory: hundreds of them in seconds."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import Trial

from sonew_autotune.search.opening import join_search
from sonew_autotune.search.plan import Plan
from sonew_autotune.search.presence import Bury, Opened
from sonew_autotune.search.stopping import Rules
from sonew_autotune.search.study import Search
from sonew_autotune.search.targets import recorded_target
from sonew_autotune.search.tuner import FINALISTS
from sonew_autotune.settings import Settings
from sonew_autotune.trials.landscape import Landscape
from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.recorded import RecordedDevice
from sonew_autotune.trials.trial import Comparison, FinalRequest, Timed, TrialRequest


class Alone:
    """Presence where nobody else can be."""

    @contextmanager
    def working(self, trial: Trial) -> Iterator[None]:
        del trial
        yield

    def bury(self, study: optuna.Study, buried: Bury) -> None:
        """Nobody dies."""


def search(landscape: Landscape, settings: Settings) -> tuple[Search, float]:
    """A search and its choice's regret: how much slower it is than the best point, by the medians of all that was recorded."""
    target, device = recorded_target(landscape), RecordedDevice(landscapes=[landscape], seed=settings.seed)
    plan = Plan(
        trials=settings.trials,
        seed=settings.seed,
        sampler=settings.sampler,
        rules=Rules(patience=settings.patience),
        first=[target.space.default],
    )
    opened = Opened(storage=InMemoryStorage(), presence=Alone(), name="memory")
    found = join_search(opened, "s", target.space, plan)

    def evaluate(config: dict[str, int]) -> Timed | Failure:
        best = next((record.config for record in found.ranked), None)
        request = TrialRequest(subject=target.subject, config=config, rounds=settings.rounds, seed=settings.seed, incumbent=best)
        outcome = device.answer(request, 0.0)
        assert isinstance(outcome, Timed | Failure)
        return outcome

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found.run(evaluate)
    finalists = [record.config for record in found.ranked[:FINALISTS]]
    final = device.answer(FinalRequest(subject=target.subject, finalists=finalists, seed=settings.seed, seconds=0.0), 0.0)
    assert isinstance(final, Comparison)
    truth = {tuple(sorted(record.config.items())): record.ratio for record in landscape.records}
    return found, truth[tuple(sorted(final.config.items()))] / landscape.best.ratio - 1


def regrets(landscape: Landscape, settings: list[Settings]) -> list[float]:
    """The regret of one search per settings."""
    return [search(landscape, each)[1] for each in settings]


def typical(values: list[float]) -> float:
    """The mean."""
    return statistics.fmean(values)
