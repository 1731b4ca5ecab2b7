"""A device that replays recorded trials: searches run on it in milliseconds, the same way each time, on any machine."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sonew_autotune.measure import Samples, paired_ratio
from sonew_autotune.problems import Case
from sonew_autotune.space import Point, point_of
from sonew_autotune.trials.landscape import Landscape, LandscapeRecord
from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.trial import (
    ADAMW,
    BEST,
    CANDIDATE,
    COPY,
    DEFAULT,
    FINAL_ROUNDS,
    INCUMBENT,
    Comparison,
    FinalRequest,
    Outcome,
    Request,
    Timed,
    TrialRequest,
    lost,
    run_off,
)

BACKEND: Final = "recorded"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedDevice:
    """Answers requests as a worker does, from recorded samples.

    A round is drawn from the rounds that were recorded for the candidate, default and copy together, so that the noise of the
    machine that was recorded is the noise that the search meets. AdamW was not recorded: the default stands in for it.

    Attributes:
        landscapes: what can be asked for. seed: of the draws. delay_s: how long each trial takes.
    """

    landscapes: Sequence[Landscape]
    seed: int = 0
    delay_s: float = 0.0
    _random: random.Random = field(init=False)
    _records: Mapping[Case, Mapping[Point, LandscapeRecord]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_random", random.Random(self.seed))  # noqa: S311  # made-up noise, not a secret
        records = {scape.case: {point_of(record.config): record for record in scape.records} for scape in self.landscapes}
        object.__setattr__(self, "_records", records)

    def _draw(self, record: LandscapeRecord) -> tuple[float, float, float]:
        """(candidate, default, copy) of one recorded round."""
        round_ = self._random.randrange(len(record.times_ms))
        return record.times_ms[round_], record.default_ms[round_], record.copy_ms[round_]

    def answer(self, request: Request, _timeout_s: float) -> Outcome:
        """As `worker.Worker.answer`."""
        if self.delay_s:
            time.sleep(self.delay_s)
        return self._trial(request) if isinstance(request, TrialRequest) else self._final(request)

    def _trial(self, request: TrialRequest) -> Timed | Failure:
        records = self._records[request.subject.case]
        record = records.get(point_of(request.config))
        if record is None:
            return Failure("error", "this configuration was not recorded")
        if record.failure is not None:
            return record.failure
        best = records[point_of(request.incumbent)] if request.incumbent is not None else None
        times: dict[str, list[float]] = {name: [] for name in (CANDIDATE, DEFAULT, COPY, *([INCUMBENT] if best else []))}
        for _ in range(request.rounds):
            drawn = self._draw(record)
            for name, value in zip((CANDIDATE, DEFAULT, COPY), drawn, strict=True):
                times[name].append(value)
            if best is not None:  # as it would have been beside this round's default
                own, default, _copy = self._draw(best)
                times[INCUMBENT].append(own / default * drawn[1])
            if lost(times, request.rounds):
                break
        samples = {name: Samples(tuple(taken)) for name, taken in times.items()}
        pruned = len(times[CANDIDATE]) < request.rounds
        ratio = paired_ratio(samples[CANDIDATE], samples[DEFAULT], seed=request.seed)
        return Timed(ratio, samples[CANDIDATE], samples[DEFAULT], samples[COPY], pruned)

    def _final(self, request: FinalRequest) -> Comparison:
        records = self._records[request.subject.case]

        def medians(finalists: Sequence[Mapping[str, int]], rounds: int) -> list[float]:
            drawn = [[self._draw(records[point_of(config)]) for _ in range(rounds)] for config in finalists]
            return [statistics.median(own / default for own, default, _ in taken) for taken in drawn]

        best = run_off(request.finalists, medians)
        rounds = [self._draw(records[point_of(best)]) for _ in range(FINAL_ROUNDS)]
        own, default, copy = (Samples(tuple(column)) for column in zip(*rounds, strict=True))
        return Comparison(dict(best), {BEST: own, DEFAULT: default, COPY: copy, ADAMW: default}, {BEST: 0, DEFAULT: 0})
