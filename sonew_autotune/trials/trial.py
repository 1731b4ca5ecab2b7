"""What one trial does: check a candidate, then time it against the default; and the final comparison. No Optuna in here.

Requests and outcomes are plain values, so that they can travel to a worker process and back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import torch

from sonew.backends.native_build import NativeBuildError
from sonew.dispatch import step
from sonew_autotune.measure import REPORTED_ROUNDS, TARGET_SAMPLE_S, Ratio, Samples, Work, copy_roof, fused_adamw, interleave, paired_ratio
from sonew_autotune.memory import peak_bytes
from sonew_autotune.problems import Bench, Case, build_bench, build_group, tensors_of
from sonew_autotune.trials.check import WrongResultError, check_config
from sonew_autotune.trials.outcome import Failure

HOPELESS: Final = 1.25  # a candidate this much slower in each of its first rounds is timed no further
HOPELESS_ROUNDS: Final = 2
RUNOFF_ROUNDS: Final = 5
FINAL_ROUNDS: Final = 9
CANDIDATE, DEFAULT, BEST, ADAMW, COPY = "candidate", "default", "best", "adamw", "copy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is tuned: a case under a backend's kernel family, and the configuration to beat."""

    case: Case
    backend: str
    kernel: str
    default: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRequest:
    """Check one configuration, then time it against the default over so many rounds."""

    subject: Subject
    config: Mapping[str, int]
    rounds: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalRequest:
    """Choose among finalists in a run-off, then time the winner against the default, fused AdamW and a copy.

    Attributes:
        finalists: best first; the default itself where nothing beat it.
        seconds: time allowed; the final rounds are not begun after it, but the first always is.
    """

    subject: Subject
    finalists: Sequence[Mapping[str, int]]
    seed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Timed:
    """A checked candidate's time, and its ratio to the default's in the same rounds."""

    ratio: Ratio
    candidate: Samples
    default: Samples


@dataclass(frozen=True, slots=True)
class Comparison:
    """The last comparison: samples by name (default, best, adamw, copy), all from the same rounds; peak memory of default and best."""

    config: Mapping[str, int]
    samples: Mapping[str, Samples]
    peak_bytes: Mapping[str, int]


Request: TypeAlias = TrialRequest | FinalRequest
Outcome: TypeAlias = Timed | Comparison | Failure


def classify(error: BaseException) -> Failure:
    """The failure behind an exception, as text: a kept traceback would keep the candidate's tensors."""
    message = f"{type(error).__name__}: {error}".strip()[:2000]
    if isinstance(error, WrongResultError):
        return Failure("wrong", message)
    compile_error = isinstance(error, NativeBuildError) or type(error).__module__.startswith("triton.")
    return Failure("compile" if compile_error else "error", message)


def _hopeless(times: Mapping[str, Sequence[float]]) -> bool:
    pairs = list(zip(times[CANDIDATE], times[DEFAULT], strict=True))
    return len(pairs) == HOPELESS_ROUNDS and all(candidate > HOPELESS * default for candidate, default in pairs)


class Evaluator:
    """Answers requests, keeping the tensors of the case at hand between them."""

    def __init__(self) -> None:
        self._bench: Bench | None = None

    def answer(self, request: Request) -> Outcome:
        """The request's outcome; a failing candidate is an outcome, too."""
        try:
            return self._trial(request) if isinstance(request, TrialRequest) else self._final(request)
        except Exception as error:  # noqa: BLE001  # whatever a candidate raises is recorded, not raised
            return classify(error)

    def _tensors(self, case: Case) -> Bench:
        if self._bench is None or self._bench.case != case:
            self._bench = None  # freed before the next case is allocated
            self._bench = build_bench(case)
        return self._bench

    def _work(self, subject: Subject, config: Mapping[str, int], direction: torch.Tensor | None = None) -> tuple[Work, Any]:
        group = build_group(self._tensors(subject.case), subject.backend, subject.kernel, config, direction=direction)
        return (lambda: step(group)), group

    def _trial(self, request: TrialRequest) -> Timed:
        subject, device = request.subject, request.subject.case.device
        check_config(subject.case, subject.backend, subject.kernel, request.config)
        candidate, group = self._work(subject, request.config)
        work: dict[str, Work] = {CANDIDATE: candidate}
        if request.config != subject.default:
            work[DEFAULT], _ = self._work(subject, subject.default, group.table.direction)
        stop: Callable[[Mapping[str, Sequence[float]]], bool] | None = _hopeless if DEFAULT in work else None
        seconds = TARGET_SAMPLE_S / 2
        samples = interleave(work, rounds=request.rounds, device=device, target_sample_s=seconds, seed=request.seed, stop=stop)
        default = samples.get(DEFAULT, samples[CANDIDATE])
        return Timed(paired_ratio(samples[CANDIDATE], default, seed=request.seed), samples[CANDIDATE], default)

    def _runoff(self, request: FinalRequest) -> Mapping[str, int]:
        if len(request.finalists) == 1:
            return request.finalists[0]
        device = request.subject.case.device
        work = {str(index): self._work(request.subject, config)[0] for index, config in enumerate(request.finalists)}
        deadline = time.monotonic() + request.seconds / 3
        samples = interleave(work, rounds=RUNOFF_ROUNDS, device=device, seed=request.seed, deadline=deadline)
        return request.finalists[int(min(samples, key=lambda name: samples[name].median_ms))]

    def _final(self, request: FinalRequest) -> Comparison:
        subject, case = request.subject, request.subject.case
        deadline = time.monotonic() + request.seconds
        chosen = self._runoff(request)
        best, best_group = self._work(subject, chosen)
        default, default_group = self._work(subject, subject.default, best_group.table.direction)
        work: dict[str, Work] = {
            DEFAULT: default,
            BEST: best,
            ADAMW: fused_adamw(case.shapes, dtype=getattr(torch, case.param_dtype), device=case.device),
            COPY: copy_roof(case.elements, dtype=getattr(torch, case.param_dtype), device=case.device),
        }
        rounds = FINAL_ROUNDS if time.monotonic() < deadline else REPORTED_ROUNDS
        samples = interleave(work, rounds=rounds, device=case.device, seed=request.seed + 1)
        held = tensors_of(self._tensors(case))
        peaks = {BEST: peak_bytes(best, best_group, *held, device=case.device)}
        peaks[DEFAULT] = peak_bytes(default, default_group, *held, device=case.device)
        return Comparison(dict(chosen), samples, peaks)


def make_evaluator() -> Callable[[Request], Outcome]:
    """For `worker.Worker`."""
    return Evaluator().answer
