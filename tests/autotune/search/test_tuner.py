"""A run over problems with made-up times: verdicts, reuse, resumption, failures and the budget."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sonew import tuned
from sonew.dispatch import make_plan
from sonew_autotune.device import NoDeviceError
from sonew_autotune.problems import Case
from sonew_autotune.search.results import Record, Result
from sonew_autotune.search.study import Prepare
from sonew_autotune.search.targets import Target, find_target, neighbours
from sonew_autotune.search.tuner import Machine, Run
from sonew_autotune.settings import Settings
from sonew_autotune.store.files import WriteError
from sonew_autotune.store.journal import locked
from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.trial import Request, TrialRequest
from tests.autotune.samples import FakeMachine

SETTINGS = Settings(trials=6, rounds=3, budget_s=600)


def case(band: int = 1, size: int = 5000) -> Case:
    """A small problem on this CPU."""
    return Case(name=str(size), shapes=((size,),), device="cpu", band=band)


def faster_in_big_blocks(config: Mapping[str, int]) -> float:
    """Milliseconds: half the default's at block 2048."""
    return {256: 3.0, 512: 2.5, 1024: 2.0, 2048: 1.0}[config["block"]]


def default_is_best(config: Mapping[str, int]) -> float:
    """Milliseconds: nothing beats the default of band 1."""
    return 2.0 if config == find_target(case()).space.default else 3.0


class Told:
    """A report that keeps everything."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int, int]] = []
        self.methods: list[str] = []
        self.records: list[Record] = []
        self.results: list[Result] = []
        self.warnings: list[str] = []

    def begin(self, case: Case, wanted: int, known: int, method: str) -> None:
        self.methods.append(method)
        self.begun.append((case.title, wanted, known))

    def plan(self, cases: Sequence[Case], device: str, settings: Settings) -> None:
        """Nothing to keep."""

    def trial(self, case: Case, record: Record) -> None:  # noqa: ARG002  # the report's protocol
        self.records.append(record)

    def end(self, result: Result) -> None:
        self.results.append(result)

    def warn(self, line: str) -> None:
        self.warnings.append(line)


def run(folder: Path, answer: Any, cases: list[Case], settings: Settings = SETTINGS) -> tuple[list[Result], Told]:
    """Tune with a store and studies in a folder."""
    told = Told()
    machine = Machine(answer=answer)
    tuning = Run(
        settings, store_path=folder / "tuned.json", studies=folder / "studies", machine=machine, report=told, started=time.monotonic()
    )
    return tuning.tune(cases), told


def test_a_winner_is_stored_with_its_evidence_and_then_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = FakeMachine(faster_in_big_blocks)
    (result,), told = run(tmp_path, machine.answer, [case()], replace(SETTINGS, trials=40))
    assert result.status == "tuned"
    assert result.entry is not None
    assert result.entry.config.as_dict()["block"] == 2048
    evidence = result.entry.evidence
    assert evidence["median_ms"] == pytest.approx(1.0)
    assert evidence["ratio_to_default"] == pytest.approx({"median": 0.5, "low": 0.5, "high": 0.5})
    assert evidence["ratio_to_adamw"]["median"] == pytest.approx(2.0)
    assert evidence["ratio_to_copy"]["median"] == pytest.approx(10.0)
    assert evidence["roof_share"] == pytest.approx((44 / 1.0) / (8 / 0.1))
    assert (evidence["rounds"], evidence["trials"], evidence["failed_trials"], evidence["seed"]) == (7, 40, 0, 0)
    assert evidence["peak_bytes"] == 1010
    assert {"python", "torch", "optuna", "sonew"} <= set(evidence["versions"])
    assert machine.tried[0] == find_target(case()).space.default
    assert told.results == [result]
    assert len(told.records) == 40

    monkeypatch.setenv("SONEW_STORE", str(tmp_path / "tuned.json"))
    plan = make_plan(case().problem)
    assert plan.config == result.entry.config
    assert plan.provenance.startswith("tuned entry (measured, user store, exact size bucket")


def test_the_default_is_kept_when_nothing_is_faster_or_the_interval_does_not_say_so(tmp_path: Path) -> None:
    machine = FakeMachine(default_is_best)
    (kept,), _ = run(tmp_path / "a", machine.answer, [case()])
    assert kept.status == "default kept"
    assert kept.entry is not None
    assert kept.entry.config.as_dict() == find_target(case()).space.default
    assert kept.entry.evidence["peak_bytes"] == 1000
    assert machine.finals[0].finalists == [find_target(case()).space.default]

    noisy = FakeMachine(faster_in_big_blocks, noise=(1.8, 2.1, 1.9, 2.1, 2.0, 1.9, 2.2))  # a challenger that was lucky in its trial
    (unproven,), _ = run(tmp_path / "b", noisy.answer, [case()], replace(SETTINGS, trials=40))
    assert unproven.status == "default kept"
    assert unproven.entry is not None
    assert unproven.entry.config.as_dict() == find_target(case()).space.default
    assert unproven.entry.evidence["challenger"]["config"]["block"] == 2048
    assert unproven.entry.evidence["ratio_to_default"]["median"] == 1.0
    assert unproven.entry.evidence["median_ms"] == pytest.approx(2.0)


def test_a_busy_machine_cannot_dethrone_the_default_and_is_asked_again(tmp_path: Path) -> None:
    settings = replace(SETTINGS, trials=40)
    busy = FakeMachine(faster_in_big_blocks, drift=(1.0, 9.0, 1.0, 8.0, 2.0, 30.0, 1.0))
    (kept,), _ = run(tmp_path, busy.answer, [case()], settings)
    assert (kept.status, kept.note) == ("default kept", "the machine is too busy to judge a challenger")
    assert kept.entry is not None
    assert kept.entry.evidence["noisy"] is True
    assert kept.entry.evidence["challenger"]["ratio_to_default"]["high"] == pytest.approx(0.5)
    quiet = FakeMachine(faster_in_big_blocks)
    (tuned_now,), _ = run(tmp_path, quiet.answer, [case()], settings)
    assert tuned_now.status == "tuned"
    assert (len(quiet.tried), len(quiet.finals)) == (0, 1)
    (again,), _ = run(tmp_path, busy.answer, [case()], replace(settings, fresh=True))
    assert (again.status, again.entry) == ("reused", tuned_now.entry)  # what was judged in quiet stands
    assert "too busy" in again.note


def test_a_second_run_reuses_fresh_tunes_again_and_more_trials_resume(tmp_path: Path) -> None:
    machine = FakeMachine(faster_in_big_blocks)
    run(tmp_path, machine.answer, [case()])
    (reused,), told = run(tmp_path, machine.answer, [case()])
    assert reused.status == "reused"
    assert "tuned on" in reused.note
    assert told.begun == []
    assert (len(machine.tried), len(machine.finals)) == (6, 1)
    (more,), told = run(tmp_path, machine.answer, [case()], replace(SETTINGS, trials=9))
    assert more.note == "resumed with 6 finished trials"
    assert told.begun[0][1:] == (9, 6)
    assert (len(machine.tried), len(machine.finals)) == (9, 2)
    (again,), _ = run(tmp_path, machine.answer, [case()], replace(SETTINGS, fresh=True))
    assert again.status in ("tuned", "default kept")
    assert len(machine.tried) == 15


def test_the_winner_of_a_similar_problem_is_tried_second(tmp_path: Path) -> None:
    machine = FakeMachine(faster_in_big_blocks)
    (first, _), _ = run(tmp_path, machine.answer, [case(1, 5000), case(1, 50_000)], replace(SETTINGS, trials=40))
    assert first.entry is not None
    assert machine.tried[41] == first.entry.config.as_dict()
    assert neighbours(find_target(case(2, 50_000)), tmp_path / "tuned.json")[0] == first.entry.config.as_dict()


def test_a_failing_default_ends_the_problem_and_the_next_goes_on(tmp_path: Path) -> None:
    machine = FakeMachine(faster_in_big_blocks)

    def answer(request: Request, timeout_s: float) -> Any:
        if request.subject.case.band == 4:
            return Failure("wrong", "param differs at (3,)")
        return machine.answer(request, timeout_s)

    (failed, fine), told = run(tmp_path, answer, [case(4), case(1)])
    assert (failed.status, failed.entry) == ("failed", None)
    assert "wrong" in failed.note
    assert "param differs at (3,)" in failed.note
    assert fine.entry is not None
    assert [entry.key.band for entry in tuned.read_store("user store", tmp_path / "tuned.json").entries] == [1]
    assert [result.status for result in told.results] == ["failed", fine.status]


def test_failing_candidates_are_listed_not_timed(tmp_path: Path) -> None:
    def cost(config: Mapping[str, int]) -> float | Failure:
        return Failure("compile", "out of registers") if config["block"] == 2048 else faster_in_big_blocks(config)

    (result,), _ = run(tmp_path, FakeMachine(cost).answer, [case()], replace(SETTINGS, trials=40))
    assert result.status == "default kept"
    assert {record.config["block"] for record in result.failures} == {2048}
    assert result.entry is not None
    assert result.entry.evidence["failed_trials"] == len(result.failures) > 0


def test_a_problem_that_another_process_tunes_is_left_out_and_the_rest_goes_on(tmp_path: Path) -> None:
    machine = FakeMachine(faster_in_big_blocks)
    taken = tmp_path / "studies" / f"{find_target(case(1)).study_name}.lock"
    with locked(taken):
        (left, fine), told = run(tmp_path, machine.answer, [case(1), case(2)])
    assert (left.status, left.entry) == ("unfinished", None)
    assert "another process holds" in left.note
    assert fine.entry is not None
    assert told.results == [left, fine]


class SlowMachine(FakeMachine):
    """Every answer moves the clock on by so many seconds."""

    def __init__(self, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(faster_in_big_blocks)
        self.now, self.seconds = 1000.0, seconds
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def answer(self, request: Request, timeout_s: float) -> Any:
        """Answer late, or not at all."""
        self.now += min(self.seconds, timeout_s)
        return super().answer(request, timeout_s) if self.seconds <= timeout_s else Failure("timeout", "too slow")


@pytest.mark.parametrize(("seconds", "budget"), [(1.0, 30.0), (5.0, 60.0), (0.1, 10.0), (50.0, 20.0), (7.0, 5.0)])
def test_the_budget_is_kept_and_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, budget: float) -> None:
    cases = [case(1), case(2), case(4)]
    for each in cases:
        find_target(each)  # builds the libraries outside the faked time
    machine = SlowMachine(seconds, monkeypatch)
    results, _ = run(tmp_path, machine.answer, cases, replace(SETTINGS, trials=60, budget_s=budget))
    assert machine.now - 1000.0 <= budget + 10
    assert len(results) == 3
    if seconds * 10 < budget:
        assert all(result.entry is not None for result in results)
    if seconds > budget:
        assert [result.status for result in results] == ["unfinished"] * 3
        assert all("budget ended" in result.note for result in results)


def test_a_trial_cut_by_the_budget_is_no_verdict_on_its_candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_target(case())
    with monkeypatch.context() as patched:
        slow = SlowMachine(50.0, patched)
        (cut,), _ = run(tmp_path, slow.answer, [case()], replace(SETTINGS, budget_s=20.0))
    assert (cut.status, cut.failures) == ("unfinished", ())
    machine = FakeMachine(faster_in_big_blocks)
    (result,), _ = run(tmp_path, machine.answer, [case()])
    assert result.failures == ()
    assert machine.tried[0] == find_target(case()).space.default


def test_the_study_belongs_to_everything_a_time_depends_on() -> None:
    target = find_target(case())
    names = {target.study_name}
    names.add(replace(target, key=replace(target.key, toolchain="x")).study_name)
    names.add(replace(target, key=replace(target.key, source_hash="y")).study_name)
    names.add(find_target(case(size=5001)).study_name)
    names.add(replace(target, space=replace(target.space, axes=target.space.axes[1:])).study_name)
    assert len(names) == 5
    assert find_target(case()).study_name == target.study_name


def test_no_backend_means_every_reason() -> None:
    with pytest.raises(NoDeviceError, match=r"triton: .*cpu: .*reference: has nothing to tune"):
        find_target(replace(case(), device="meta"))


def test_a_candidate_that_hangs_is_a_failure_even_in_a_short_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It need not have the whole time of the settings: what its like took says when it hangs."""
    find_target(case())
    slow = SlowMachine(1.0, monkeypatch)

    def answer(request: Request, timeout_s: float) -> Any:
        if isinstance(request, TrialRequest) and request.config["block"] == 256:
            slow.now += timeout_s
            return Failure("timeout", "no result")
        return slow.answer(request, timeout_s)

    settings = replace(SETTINGS, trials=3, budget_s=120.0)
    first = replace(settings, sampler="random", seed=1)
    (result,), _ = run(tmp_path, answer, [case()], replace(first, trials=8))
    assert {record.failure for record in result.failures} == {Failure("timeout", "no result")}
    assert result.entry is not None
    assert slow.now - 1000.0 <= 130


def test_a_candidate_that_fails_before_the_default_is_timed_does_not_end_the_search(tmp_path: Path) -> None:
    machine = FakeMachine(faster_in_big_blocks)
    target = find_target(case())
    told = Told()
    held: list[Future[Failure | None]] = []

    def compiler(_target: Target) -> Prepare:
        def prepare(config: dict[str, int]) -> Future[Failure | None]:
            future: Future[Failure | None] = Future()
            if config == target.space.default:
                held.append(future)
            else:
                waiting = not held[0].done()
                future.set_result(Failure("compile", "too much") if waiting else None)
                if waiting:
                    held[0].set_result(None)
            return future

        return prepare

    tuning = Run(
        replace(SETTINGS, trials=8),
        store_path=tmp_path / "tuned.json",
        studies=tmp_path / "studies",
        machine=Machine(answer=machine.answer, compiler=compiler, ahead=2),
        report=told,
        started=time.monotonic(),
    )
    (result,) = tuning.tune([case()])
    assert [record.failure for record in result.failures] == [Failure("compile", "too much")]
    assert result.entry is not None


def test_a_full_disk_ends_the_run_with_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = FakeMachine(faster_in_big_blocks)

    def full(*_: object, **__: object) -> None:
        raise WriteError("No space left on device")  # noqa: EM101, TRY003  # as the store says it

    monkeypatch.setattr("sonew_autotune.store.winners.save", full)
    with pytest.raises(WriteError, match="No space left"):
        run(tmp_path, machine.answer, [case()])
    monkeypatch.undo()
    (result,), _ = run(tmp_path, machine.answer, [case()])
    assert "resumed with 6 finished trials" in result.note
