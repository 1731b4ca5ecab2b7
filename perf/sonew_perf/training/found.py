"""What a search of hyperparameters came to, and how a record says it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Protocol

import torch

from sonew_perf.records.files import Entry
from sonew_perf.records.results import SEARCH
from sonew_perf.training.asked import Asked
from sonew_perf.training.running import machine_for
from sonew_perf.training.runs import Run
from sonew_perf.training.settings import Range, Settings
from sonew_perf.training.tasks.data import Data

SAMPLER: Final = "tpe"
PRUNE_AFTER_TRIALS: Final = 5  # finished ones, so that there is a median worth the name


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A trial that came to an end.

    Attributes:
        settings: those that are searched. outcome: "finished", "pruned" or "diverged".
        value: the last mean loss; of a pruned trial where it was ended, which compares with no other trial's; None where it diverged.
        means: mean losses that it came to. seconds: it took. date: of its end, ISO 8601.
    """

    settings: Mapping[str, float]
    outcome: str
    value: float | None
    means: int
    seconds: float
    date: str


class Report(Protocol):
    """Hears of a search."""

    def resume(self, trials: Sequence[Trial]) -> None:
        """Trials of an earlier command, perhaps none."""

    def mean(self, number: int, loss: float) -> None:
        """A mean loss of the trial that is under way, numbered from 0."""

    def trial(self, trial: Trial) -> None:
        """A trial came to its end."""

    def warn(self, text: str) -> None:
        """A reference outside the ranges, or a broken study that was set aside, in a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search came to.

    Attributes:
        run: with the best settings and the first seed. value: of it.
        trials: all of them, in the order in which they began. fresh: how many this command added.
        study: its name. searched: settings that were varied, with their ranges. warm_up: means before a trial may be pruned.
    """

    run: Run
    value: float
    trials: tuple[Trial, ...]
    fresh: int
    study: str
    searched: Mapping[str, Range]
    warm_up: int

    @property
    def settings(self) -> Settings:
        """The best."""
        return self.run.settings

    @property
    def outcomes(self) -> dict[str, int]:
        """Number of trials by outcome."""
        return dict(Counter(trial.outcome for trial in self.trials))


def search_entry(found: Found, asked: Asked, data: Data, device: torch.device) -> Entry:
    """The search as an entry of a record.

    Returns:
        What was trained as in a training run's entry, and: `study`; `ranges`, the name, and `searched`, per setting `low`, `high` and
        `complement` (of 1 - value); `fixed`, the other settings; `sampler`; `pruner`; `value` and `hyper` of the best trial; `outcomes`,
        number of trials by outcome; `trials`, the fields of each `Trial`; `seconds` of all; `date` of the last.
    """
    run = found.run
    return {
        "kind": SEARCH,
        **run.describe(),
        "label": run.label,
        "data": data.describe(),
        "machine": machine_for(run.framework, device),
        "study": found.study,
        "ranges": asked.ranges,
        "searched": {name: asdict(at) for name, at in found.searched.items()},
        "fixed": run.fixed(found.searched),
        "sampler": SAMPLER,
        "pruner": {"name": "median", "after_trials": PRUNE_AFTER_TRIALS, "after_means": found.warm_up},
        "value": found.value,
        "hyper": run.hyper,
        "outcomes": found.outcomes,
        "trials": [asdict(trial) for trial in found.trials],
        "seconds": round(sum(trial.seconds for trial in found.trials), 3),
        "date": max(trial.date for trial in found.trials),
    }
