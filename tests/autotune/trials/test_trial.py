"""One trial on real tensors: check, then time; and what a failure becomes."""

from __future__ import annotations

import pytest

from sonew.backends.native_build import NativeBuildError
from sonew_autotune.measure import REPORTED_ROUNDS
from sonew_autotune.problems import Case
from sonew_autotune.trials import trial
from sonew_autotune.trials.check import WrongResultError
from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.trial import Comparison, Evaluator, FinalRequest, Subject, Timed, TrialRequest, classify, lost
from sonew_kernels.spec import SPECS

CASE = Case(name="3000", shapes=((3000,),), device="cpu", band=1)
DEFAULT = SPECS["cpu"].default(1)
OTHER = {**DEFAULT, "segment": 4096, "threads": 1}
SUBJECT = Subject(case=CASE, backend="cpu", kernel="cpu", default=DEFAULT)


@pytest.fixture(autouse=True)
def _short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "TARGET_SAMPLE_S", 0.001)


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
    assert lost({"candidate": [2.0, 2.0], "default": [1.0, 1.0]})
    assert not lost({"candidate": [2.0, 1.2], "default": [1.0, 1.0]})
    assert not lost({"candidate": [2.0], "default": [1.0]})
    assert lost({"candidate": [2.0, 2.0], "default": [2.0, 2.0], "incumbent": [1.0, 1.0]})


def test_a_candidate_that_loses_every_round_is_stopped_by_the_paired_test() -> None:
    best = [1.0, 1.3, 0.8, 1.1, 1.0]
    slower = [time * factor for time, factor in zip(best, (1.02, 1.05, 1.03, 1.04, 1.01), strict=True)]
    race = {"candidate": slower, "default": [9.0] * 5, "incumbent": best}
    assert not lost({name: times[:3] for name, times in race.items()})
    assert lost({name: times[:4] for name, times in race.items()})
    faster_once = {**race, "candidate": [0.9 * best[0], *slower[1:]]}
    assert not lost({name: times[:4] for name, times in faster_once.items()})
    assert not lost({"candidate": best, "default": best})
