"""What one trial does: check a candidate, then time it against the default; and the final comparison. No Optuna in here.

Requests and outcomes are plain values, so that they can travel to a worker process and back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

import torch

from sonew.backends.native_build import NativeBuildError
from sonew.dispatch import step
from sonew_autotune.device import cache_bytes
from sonew_autotune.measure import (
    MOST_COPIES,
    REPORTED_ROUNDS,
    TARGET_SAMPLE_S,
    Ratio,
    Samples,
    Work,
    copies_beyond_cache,
    copy_roof,
    fused_adamw,
    interleave,
    paired_ratio,
    rotate,
)
from sonew_autotune.memory import held_bytes, peak_bytes
from sonew_autotune.problems import Bench, Case, build_bench, build_group, tensors_of
from sonew_autotune.trials.check import WrongResultError, check_config
from sonew_autotune.trials.outcome import Failure

HOPELESS: Final = 1.25  # a candidate this much slower than the best so far in each of its first rounds is timed no further
HOPELESS_ROUNDS: Final = 2
PRUNE_P: Final = 0.1  # of the paired signed-rank test for "slower than the best so far", all looks of a trial together
PRUNE_ROUNDS: Final = 4  # with fewer pairs the test cannot reach PRUNE_P
PRUNE_EVERY: Final = 3  # rounds between two looks
RUNOFF: Final = ((12, 3), (60, 1))  # rounds, and how many are left after them
FINAL_ROUNDS: Final = 41  # they tell apart what differs by 2 % where rounds differ by 6 %
MOST_COPIED_BYTES: Final = 2**30  # of all the copies of one workload together, three of which are held at once
MOST_GROUPS: Final = 256  # copies of a step: each is a launch group, which takes a millisecond to make, for each candidate anew
CANDIDATE, INCUMBENT, DEFAULT, BEST, ADAMW, COPY = "candidate", "incumbent", "default", "best", "adamw", "copy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is tuned: a case under a backend's kernel family, and the configuration to beat."""

    case: Case
    backend: str
    kernel: str
    default: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRequest:
    """Check one configuration, then time it against the default, the best so far and a copy over so many rounds.

    Attributes:
        incumbent: the best so far; None where it is the default, or where there is none.
    """

    subject: Subject
    config: Mapping[str, int]
    rounds: int
    seed: int
    incumbent: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalRequest:
    """Choose among finalists in a run-off, then time the winner against the default, fused AdamW and a copy.

    Attributes:
        finalists: best first; the default itself where nothing beat it.
        seconds: time that the comparison should take. The run-off gets half of it. Past the whole, of the `FINAL_ROUNDS` only
            the first `REPORTED_ROUNDS` are still begun: with fewer the result could not be stored. A comparison may so take longer.
    """

    subject: Subject
    finalists: Sequence[Mapping[str, int]]
    seed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Timed:
    """A checked candidate's time, and its ratio to the default's in the same rounds.

    Attributes:
        copy: of as many elements, in the same rounds. pruned: it lost to the best so far before its last round.
    """

    ratio: Ratio
    candidate: Samples
    default: Samples
    copy: Samples
    pruned: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """The last comparison: samples by name (default, best, adamw, copy), all from the same rounds; peak memory of default and best."""

    config: Mapping[str, int]
    samples: Mapping[str, Samples]
    peak_bytes: Mapping[str, int]


Request: TypeAlias = TrialRequest | FinalRequest
Outcome: TypeAlias = Timed | Comparison | Failure
ILLEGAL: Final = ("illegal memory access", "misaligned address", "device-side assert", "unspecified launch failure", "illegal instruction")


def classify(error: BaseException) -> Failure:
    """The failure behind an exception, as text: a kept traceback would keep the candidate's tensors."""
    message = f"{type(error).__name__}: {error}".strip()[:2000]
    if isinstance(error, WrongResultError):
        return Failure("wrong", message)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in message:
        return Failure("memory", message)
    if any(sign in message for sign in ILLEGAL):
        return Failure("illegal access", message)
    compile_error = isinstance(error, NativeBuildError) or type(error).__module__.startswith("triton.")
    return Failure("compile" if compile_error else "error", message)


def prune_looks(rounds: int) -> range:
    """After which of a trial's rounds the paired test is made: every third, counted back from the last but one, not before it can tell."""
    return range(rounds - 1, PRUNE_ROUNDS - 1, -PRUNE_EVERY)


def lost(times: Mapping[str, Sequence[float]], rounds: int) -> bool:
    """Whether a candidate need not be timed further: far slower in each of its first rounds, or slower by the paired test.

    The test is Wilcoxon's signed-rank test, one-sided, over the rounds that the candidate shares with the best so far: other than a
    pruner that looks at two trials' numbers, it sees both under the same drift of the machine. `PRUNE_P` is shared out among its
    looks. Of candidates exactly as fast as the best it stops 6.3 % in 5 rounds and 6.1 % in 12 (10^5 simulated trials each, with
    symmetric noise, whose shape does not matter to the test).

    Args:
        times: so far, by name, one per round. rounds: of the whole trial.
    """
    reference = times.get(INCUMBENT, times[DEFAULT])
    pairs = list(zip(times[CANDIDATE], reference, strict=True))
    if len(pairs) == HOPELESS_ROUNDS:
        return all(candidate > HOPELESS * best for candidate, best in pairs)
    looks = prune_looks(rounds)
    if len(pairs) not in looks:
        return False
    from scipy.stats import wilcoxon  # noqa: PLC0415  # a second to load, and needed only where there are many rounds

    differences = [math.log(candidate / best) for candidate, best in pairs]
    return any(differences) and float(wilcoxon(differences, alternative="greater").pvalue) <= PRUNE_P / len(looks)


def copies_of(bytes_held: int, device: str, *, most: int = MOST_COPIES) -> int:
    """Copies of a workload that holds so many bytes, so that each call finds its data cold: beyond the caches, as far as memory allows."""
    return min(copies_beyond_cache(bytes_held, cache_bytes(device), most=most), max(1, MOST_COPIED_BYTES // max(bytes_held, 1)))


def run_off(
    finalists: Sequence[Mapping[str, int]], medians: Callable[[Sequence[Mapping[str, int]], int], Sequence[float]]
) -> Mapping[str, int]:
    """The best of the finalists, in rounds that fewer and fewer of them share; `medians` times some of them over so many rounds."""
    for rounds, left in RUNOFF:
        if len(finalists) > left:
            times = medians(finalists, rounds)
            order = sorted(range(len(finalists)), key=times.__getitem__)
            finalists = [finalists[index] for index in order[:left]]
    return finalists[0]


class Evaluator:
    """Answers requests, keeping the tensors of the case at hand between them."""

    def __init__(self) -> None:
        self._benches: tuple[Bench, ...] = ()
        self._copy_roof: Work | None = None

    def answer(self, request: Request) -> Outcome:
        """The request's outcome; a failing candidate is an outcome, too."""
        try:
            return self._trial(request) if isinstance(request, TrialRequest) else self._final(request)
        except Exception as error:  # noqa: BLE001  # whatever a candidate raises is recorded, not raised
            return classify(error)

    def _tensors(self, case: Case) -> tuple[Bench, ...]:
        """The case's tensors, in as many copies as the caches make necessary."""
        if not self._benches or self._benches[0].case != case:
            self._benches, self._copy_roof = (), None  # freed before the next case is allocated
            first = build_bench(case)
            copies = copies_of(held_bytes(*tensors_of(first)), case.device, most=MOST_GROUPS)
            self._benches = (first, *(build_bench(case, seed=number) for number in range(1, copies)))
        return self._benches

    def _work(self, subject: Subject, config: Mapping[str, int], direction: torch.Tensor | None = None) -> tuple[Work, Any]:
        """A step under a configuration, over every copy in its turn, and the group of the first copy."""
        first, *others = self._tensors(subject.case)
        group: Any = build_group(first, subject.backend, subject.kernel, config, direction=direction)
        shared = group.table.direction
        groups = [group, *(build_group(bench, subject.backend, subject.kernel, config, direction=shared) for bench in others)]
        return rotate([partial(step, each) for each in groups]), group

    def _copy(self, case: Case) -> Work:
        """A copy of as many elements as the case has, over as many buffers as it needs itself to leave the caches behind."""
        self._tensors(case)
        if self._copy_roof is None:
            dtype = getattr(torch, case.param_dtype)
            copies = copies_of(2 * case.elements * dtype.itemsize, case.device)
            self._copy_roof = copy_roof(case.elements, dtype=dtype, device=case.device, copies=copies)
        return self._copy_roof

    def _adamw(self, case: Case) -> Work:
        """Fused AdamW over the case's shapes, with copies of its own number: parameters, gradients and two averages each."""
        dtype = getattr(torch, case.param_dtype)
        copies = copies_of(4 * case.elements * dtype.itemsize, case.device, most=MOST_GROUPS)
        return fused_adamw(case.shapes, dtype=dtype, device=case.device, copies=copies)

    def _trial(self, request: TrialRequest) -> Timed:
        subject, case = request.subject, request.subject.case
        check_config(case, subject.backend, subject.kernel, request.config)
        candidate, group = self._work(subject, request.config)
        work: dict[str, Work] = {CANDIDATE: candidate, COPY: self._copy(case)}
        if request.config != subject.default:
            work[DEFAULT], _ = self._work(subject, subject.default, group.table.direction)
        if request.incumbent is not None and request.incumbent not in (request.config, subject.default):
            work[INCUMBENT], _ = self._work(subject, request.incumbent, group.table.direction)
        stop = partial(lost, rounds=request.rounds) if DEFAULT in work else None
        seconds = TARGET_SAMPLE_S / 2
        samples = interleave(work, rounds=request.rounds, device=case.device, target_sample_s=seconds, seed=request.seed, stop=stop)
        own, default = samples[CANDIDATE], samples.get(DEFAULT, samples[CANDIDATE])
        pruned = len(own.times_ms) < request.rounds
        return Timed(paired_ratio(own, default, seed=request.seed), own, default, samples[COPY], pruned)

    def _runoff(self, request: FinalRequest) -> Mapping[str, int]:
        device = request.subject.case.device
        deadline = time.monotonic() + request.seconds / 2

        def medians(finalists: Sequence[Mapping[str, int]], rounds: int) -> list[float]:
            work = {str(index): self._work(request.subject, config)[0] for index, config in enumerate(finalists)}
            samples = interleave(work, rounds=rounds, device=device, seed=request.seed, deadline=deadline)
            return [samples[name].median_ms for name in work]

        return run_off(request.finalists, medians)

    def _final(self, request: FinalRequest) -> Comparison:
        subject, case = request.subject, request.subject.case
        deadline = time.monotonic() + request.seconds
        chosen = self._runoff(request)
        best, best_group = self._work(subject, chosen)
        default, default_group = self._work(subject, subject.default, best_group.table.direction)
        work: dict[str, Work] = {DEFAULT: default, BEST: best, ADAMW: self._adamw(case), COPY: self._copy(case)}
        samples = interleave(
            work, rounds=FINAL_ROUNDS, device=case.device, seed=request.seed + 1, deadline=deadline, fewest=REPORTED_ROUNDS
        )
        held = tensors_of(self._tensors(case)[0])
        peaks = {
            name: peak_bytes(partial(step, group), group, *held, device=case.device)
            for name, group in ((BEST, best_group), (DEFAULT, default_group))
        }
        return Comparison(dict(chosen), samples, peaks)


def make_evaluator() -> Callable[[Request], Outcome]:
    """For `worker.Worker`."""
    return Evaluator().answer
