"""Whole tuning runs on a recorded landscape, with the study in memory: hundreds of them in seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import Trial

from sonew_autotune.api import SilentReport
from sonew_autotune.search.presence import Bury, Opened
from sonew_autotune.search.targets import recorded_target
from sonew_autotune.search.tuner import Machine, Run
from sonew_autotune.settings import Settings
from sonew_autotune.space import point_of
from sonew_autotune.trials.landscape import Landscape
from sonew_autotune.trials.recorded import RecordedDevice


class Alone:
    """Presence where nobody else can be."""

    @contextmanager
    def working(self, trial: Trial) -> Iterator[None]:
        del trial
        yield

    def bury(self, study: optuna.Study, buried: Bury) -> None:
        """Nobody dies."""


def regret(landscape: Landscape, settings: Settings, folder: Path) -> float:
    """How much slower the run's best challenger, or the default where it was kept, is than the best point, by all that was recorded."""
    device = RecordedDevice(landscapes=[landscape], seed=settings.seed)
    run = Run(
        settings,
        store_path=folder / "tuned.json",
        studies=folder,
        machine=Machine(answer=device.answer, target=lambda _: recorded_target(landscape)),
        report=SilentReport(),
        started=time.monotonic(),
        shared=Opened(storage=InMemoryStorage(), presence=Alone(), name="memory"),
    )
    (result,) = run.tune([landscape.case])
    (folder / "tuned.json").unlink()
    assert result.entry is not None
    truth = {point_of(record.config): record.ratio for record in landscape.records}
    return truth[point_of(result.entry.config.as_dict())] / landscape.best.ratio - 1
