"""One trial on real tensors: check, then time; and what a failure becomes."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from sonew.backends.native_build import NativeBuildError
from sonew_autotune.measure import REPORTED_ROUNDS, interleave
from sonew_autotune.problems import Case
from sonew_autotune.trials import trial
from sonew_autotune.trials.check import WrongResultError
from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.recorded import RecordedDevice
from sonew_autotune.trials.trial import Comparison, Evaluator, FinalRequest, Subject, Timed, TrialRequest, classify, lost, prune_looks
from sonew_kernels.spec import SPECS
from tests.autotune.landscapes import made_up

CASE = Case(name="3000", shapes=((3000,),), device="cpu", band=1)
DEFAULT = SPECS["cpu"].default(1)
OTHER = {**DEFAULT, "segment": 4096, "threads": 1}
SUBJECT = Subject(case=CASE, backend="cpu", kernel="cpu", default=DEFAULT)


@pytest.fixture(autouse=True)
def _short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "TARGET_SAMPLE_S", 0.001)
    monkeypatch.setattr(trial, "interleave", partial(interleave, target_sample_s=0.001))
    monkeypatch.setattr(trial, "RUNOFF", ((3, 1),))


def test_a_candidate_is_timed_beside_the_default() -> None:
    evaluator = Evaluator()
    timed = evaluator.answer(TrialRequest(subject=SUBJECT, config=OTHER, rounds=2, seed=0))
    assert isinstance(timed, Timed)
    assert len(timed.candidate.times_ms) == len(timed.default.times_ms) == 2
    rounds = [a / b for a, b in zip(timed.candidate.times_ms, timed.default.times_ms, strict=True)]
    assert timed.ratio.median == pytest.approx(sum(rounds) / 2)
    itself = evaluator.answer(TrialRequest(subject=SUBJECT, config=DEFAULT, rounds=3, seed=0))
    assert isinstance(itself, Timed)
    assert (itself.ratio.low, itself.ratio.median, itself.ratio.high) == (1.0, 1.0, 1.0)


def test_the_final_comparison_has_every_baseline_in_the_same_rounds() -> None:
    final = Evaluator().answer(FinalRequest(subject=SUBJECT, finalists=[OTHER, DEFAULT], seed=0, seconds=60))
    assert isinstance(final, Comparison)
    assert dict(final.config) in (OTHER, DEFAULT)
    assert set(final.samples) == {"default", "best", "adamw", "copy"}
    assert {len(samples.times_ms) for samples in final.samples.values()} == {trial.FINAL_ROUNDS}
    assert trial.FINAL_ROUNDS >= REPORTED_ROUNDS
    state = 3000 * 4 * (1 + 1 + 1 + 2)  # parameter, gradient, momentum, two rows of statistics
    assert all(state < peak < 2 * state for peak in final.peak_bytes.values())


def test_a_wrong_candidate_is_never_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> None:
        msg = "param differs at (17,)"
        raise WrongResultError(msg)

    def never(*_: object, **__: object) -> None:
        pytest.fail("timed")

    monkeypatch.setattr(trial, "check_config", wrong)
    monkeypatch.setattr(trial, "interleave", never)
    outcome = Evaluator().answer(TrialRequest(subject=SUBJECT, config=OTHER, rounds=2, seed=0))
    assert outcome == Failure("wrong", "WrongResultError: param differs at (17,)")


def test_failures_have_kinds() -> None:
    class OutOfResourcesError(Exception):
        __module__ = "triton.runtime.errors"

    assert classify(NativeBuildError("no compiler")) == Failure("compile", "NativeBuildError: no compiler")
    assert classify(OutOfResourcesError("shared memory")).kind == "compile"
    assert classify(RuntimeError("CUDA error")) == Failure("error", "RuntimeError: CUDA error")
    assert classify(WrongResultError("x")).kind == "wrong"
    assert len(classify(ValueError("long" * 10_000)).message) <= 2000


def test_a_hopeless_candidate_is_stopped_after_two_rounds() -> None:
    assert lost({"candidate": [2.0, 2.0], "default": [1.0, 1.0]}, 3)
    assert not lost({"candidate": [2.0, 1.2], "default": [1.0, 1.0]}, 3)
    assert not lost({"candidate": [2.0], "default": [1.0]}, 3)
    assert lost({"candidate": [2.0, 2.0], "default": [2.0, 2.0], "incumbent": [1.0, 1.0]}, 3)


def test_a_candidate_that_loses_every_round_is_stopped_by_the_paired_test() -> None:
    best = [1.0, 1.3, 0.8, 1.1, 1.0]
    slower = [time * factor for time, factor in zip(best, (1.02, 1.05, 1.03, 1.04, 1.01), strict=True)]
    race = {"candidate": slower, "default": [9.0] * 5, "incumbent": best}
    first = {name: times[:4] for name, times in race.items()}
    assert not lost({name: times[:3] for name, times in race.items()}, 5)
    assert lost(first, 5)
    assert not lost(first, 12)  # four rounds say too little where the test is made thrice
    assert lost(race, 12)
    faster_once = {**race, "candidate": [0.9 * best[0], *slower[1:]]}
    assert not lost({name: times[:4] for name, times in faster_once.items()}, 5)
    assert not lost({"candidate": best[:4], "default": best[:4]}, 5)


@pytest.mark.parametrize(("rounds", "looks"), [(3, []), (5, [4]), (12, [11, 8, 5])])
def test_few_of_the_candidates_that_equal_the_best_are_stopped(rounds: int, looks: list[int]) -> None:
    assert list(prune_looks(rounds)) == looks
    noise, stopped, trials = np.random.default_rng(0), 0, 400
    for _ in range(trials):
        own, best = (list(times) for times in noise.lognormal(0.0, 0.01, (2, rounds)))
        stopped += any(lost({"candidate": own[:done], "default": best[:done]}, rounds) for done in range(1, rounds + 1))
    assert stopped / trials <= 0.09  # 6 % are expected; at p = 0.1 after every round 12 % of 5 rounds and 23 % of 12 would be


def test_each_workload_has_the_copies_that_its_own_bytes_need(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(name="65536", shapes=((65536,),), device="cpu", band=1)
    asked: dict[str, int] = {}
    monkeypatch.setattr(trial, "cache_bytes", lambda _device: 8 * 2**20)
    monkeypatch.setattr(trial, "copy_roof", lambda *_, copies, **__: asked.update(copy=copies))
    monkeypatch.setattr(trial, "fused_adamw", lambda *_, copies, **__: asked.update(adamw=copies))
    evaluator = Evaluator()
    evaluator._copy(case)
    evaluator._adamw(case)
    assert asked == {"copy": 32, "adamw": 16}  # of 512 KiB and 1 MiB each
    assert len(evaluator._tensors(case)) == 13  # of 1.25 MiB each


@pytest.mark.parametrize("cache_mib", [50, 126, 384])
def test_copies_of_the_small_default_problem_leave_every_cache_behind_twice(monkeypatch: pytest.MonkeyPatch, cache_mib: int) -> None:
    monkeypatch.setattr(trial, "cache_bytes", lambda _device: cache_mib * 2**20)
    held = 2 * 65536 * 4
    assert trial.copies_of(held, "cpu") * held >= 2 * cache_mib * 2**20
    assert trial.copies_of(2**40, "cpu") == 1


def test_past_its_time_the_final_comparison_has_the_rounds_that_a_stored_result_needs() -> None:
    final = Evaluator().answer(FinalRequest(subject=SUBJECT, finalists=[DEFAULT], seed=0, seconds=0))
    assert isinstance(final, Comparison)
    assert {len(samples.times_ms) for samples in final.samples.values()} == {REPORTED_ROUNDS}


def test_a_recorded_device_compares_as_often_as_a_real_one() -> None:
    landscape = made_up(lambda config: 1.0 if config == OTHER else 2.0, [DEFAULT, OTHER])
    subject = Subject(case=landscape.case, backend="recorded", kernel="cpu", default=DEFAULT)
    final = RecordedDevice(landscapes=[landscape]).answer(FinalRequest(subject=subject, finalists=[OTHER], seed=0, seconds=1), 1)
    assert isinstance(final, Comparison)
    assert {len(samples.times_ms) for samples in final.samples.values()} == {trial.FINAL_ROUNDS}
