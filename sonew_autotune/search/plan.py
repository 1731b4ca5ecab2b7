"""How a search goes, and what it keeps of a trial. No Optuna in here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sonew_autotune.measure import Samples
from sonew_autotune.search.results import Record
from sonew_autotune.search.stopping import Rules
from sonew_autotune.space import Config
from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.trial import Timed


def record_of(config: dict[str, int], outcome: Timed | Failure, *, seconds: float, roof: Callable[[Samples, Samples], float]) -> Record:
    """What is kept of an outcome; `roof` gives the share of a copy's pace from the candidate's and the copy's samples."""
    if isinstance(outcome, Failure):
        return Record(config, failure=outcome, seconds=seconds, finished=time.time())
    own, default, copy = outcome.candidate, outcome.default, outcome.copy
    return Record(
        config,
        ratio=outcome.ratio,
        median_ms=own.median_ms,
        default_ms=default.median_ms,
        times_ms=own.times_ms,
        default_times_ms=default.times_ms,
        copy_times_ms=copy.times_ms,
        roof_share=roof(own, copy),
        pruned=outcome.pruned,
        seconds=seconds,
        finished=time.time(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a search goes.

    Attributes:
        trials: how many points should be known in the end. seed: of the sampler.
        sampler: a name of `samplers.sampler_names`, None: every point where they fit into `trials`, else TPE.
        rules: for ending early. first: points to try first, the default foremost.
        roof: see `record_of`. subject: what the study is about, for those who read it without this program's help.
    """

    trials: int
    seed: int = 0
    sampler: str | None = None
    rules: Rules = field(default_factory=Rules)
    first: Sequence[Config] = ()
    roof: Callable[[Samples, Samples], float] = lambda _own, _copy: 0.0
    subject: Mapping[str, Any] = field(default_factory=dict)
