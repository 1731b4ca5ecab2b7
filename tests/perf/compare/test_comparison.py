from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np
import pytest

from sonew.errors import InvalidConfigError
from sonew_autotune.settings import Exit
from sonew_perf.compare.cases import Case
from sonew_perf.compare.comparison import Judged, Progress, Settings, compare, exit_code, noise_floor
from sonew_perf.compare.rounds import Limits, Timed, Timer, batches, take_rounds
from sonew_perf.compare.verdicts import Estimate, Verdict
from sonew_perf.errors import MeasurementError
from sonew_perf.steps.workloads import one_tensor
from tests.perf.compare.played import Played, case, drawn

SETTINGS = Settings(launches=4, rounds=12)
LONG = 3600.0
A, B = case("a"), case("bb")


def _limits(seconds: float = LONG) -> Limits:
    return Limits(time.monotonic() + seconds)


def _launcher(make: Callable[[], Played]) -> Callable[[str], AbstractContextManager[Timer]]:
    return lambda _framework: make().entered()


def _compared(
    seed: int, *, slower: dict[str, float] | None = None, scatter: float = 0.01, settings: Settings = SETTINGS
) -> dict[str, Judged]:
    rng = np.random.default_rng(seed)
    launch = _launcher(lambda: Played(drawn(rng, [A.name, B.name], settings.rounds, scatter=scatter), slower or {}))
    return {each.timed.case.name: each for each in compare([A, B], launch, settings, _limits())}


def test_a_slowdown_is_called_where_it_is_and_confirmed_by_a_second_measurement() -> None:
    found = _compared(0, slower={A.name: 1.06})
    assert (found[A.name].verdict, found[A.name].confirmed) == (Verdict.SLOWER, True)
    assert len(found[A.name].timed.rounds) == 2 * SETTINGS.launches
    assert (found[B.name].verdict, found[B.name].confirmed) == (Verdict.SAME, None)
    assert len(found[B.name].timed.rounds) == SETTINGS.launches
    assert exit_code(list(found.values()), 0.03) == Exit.CHECK_FAILED
    assert exit_code(list(found.values()), 0.10) == Exit.DONE


def test_a_speedup_is_no_failure() -> None:
    found = _compared(1, slower={A.name: 0.9, B.name: 0.9})
    assert {each.verdict for each in found.values()} == {Verdict.FASTER}
    assert exit_code(list(found.values()), 0.03) == Exit.DONE


def test_what_a_second_measurement_does_not_show_is_unsure() -> None:
    """The first four launches are slowed down, the four after them are not: a disturbance, no change."""
    rng = np.random.default_rng(2)
    factors: Iterator[float] = iter([1.08] * 4 + [1.0] * 4)
    launch = _launcher(lambda: Played(drawn(rng, [A.name], 12, scatter=0.002), {A.name: next(factors)}))
    (found,) = compare([A], launch, SETTINGS, _limits())
    assert found.verdict == Verdict.UNSURE
    assert found.confirmed is False
    assert exit_code([found], 0.03) == Exit.NOT_JUDGED


def test_noise_that_could_hide_a_slowdown_is_exit_code_3() -> None:
    found = list(_compared(3, scatter=0.5).values())
    assert {each.verdict for each in found} == {Verdict.UNSURE}
    assert exit_code(found, 0.03) == Exit.NOT_JUDGED
    assert all(each.detectable is not None and each.detectable > 0.1 for each in found)


def test_without_time_for_a_second_measurement_nothing_is_called_changed() -> None:
    limits = _limits()
    rng = np.random.default_rng(4)
    launches = 0

    def launch(_framework: str) -> AbstractContextManager[Timer]:
        nonlocal launches
        launches += 1
        return Played(drawn(rng, [A.name], 12, scatter=0.002), {A.name: 1.2}).entered()

    def begin(_what: str, _launches: int) -> None:
        if launches:  # the second measurement begins, and time is over
            limits.deadline = 0.0

    (found,) = compare([A], launch, SETTINGS, limits, Progress(begin=begin))
    assert (found.verdict, found.confirmed) == (Verdict.UNSURE, None)
    assert "no second measurement" in found.timed.reason
    assert exit_code([found], 0.03) == Exit.NOT_JUDGED


def test_a_budget_that_ends_before_anything_can_be_judged_says_so() -> None:
    (found,) = compare([A], _launcher(lambda: Played({})), SETTINGS, _limits(-1.0))
    assert (found.verdict, found.timed.reason) == (Verdict.NO_DATA, "the budget ended after 0 launches")


def test_ctrl_c_keeps_what_was_timed() -> None:
    rng = np.random.default_rng(8)
    left = iter([False] * 4 * 12 * 4 + [True])  # in the fifth launch

    class Stopped(Played):
        def sample(self, name: str, side: int, calls: int) -> float:
            if next(left):
                raise KeyboardInterrupt
            return super().sample(name, side, calls)

    limits = _limits()
    settings = Settings(launches=6, rounds=12)
    (found,) = compare([A], _launcher(lambda: Stopped(drawn(rng, [A.name], 12, scatter=0.002))), settings, limits)
    assert limits.stopped == "interrupted"
    assert len(found.timed.rounds) == 4
    assert found.verdict == Verdict.SAME


def test_a_case_that_one_side_cannot_build_has_no_data_and_a_reason() -> None:
    rng = np.random.default_rng(5)
    launch = _launcher(lambda: Played(drawn(rng, [A.name, B.name], 12, scatter=0.01), broken=frozenset({A.name})))
    first, second = compare([A, B], launch, SETTINGS, _limits())
    assert (first.verdict, first.timed.reason) == (Verdict.NO_DATA, "no such kernel")
    assert second.verdict == Verdict.SAME
    assert exit_code([first, second], 0.03) == Exit.NOT_JUDGED


def test_a_case_that_kills_its_process_has_no_data_and_takes_no_other_with_it() -> None:
    """Also where it dies late, with enough launches behind it to look the same."""
    rng = np.random.default_rng(6)
    launches = 0

    def make() -> Played:
        nonlocal launches
        launches += 1
        deadly = frozenset({A.name}) if launches == 4 else frozenset()
        return Played(drawn(rng, [A.name, B.name], 12, scatter=0.01), deadly=deadly)

    first, second = compare([A, B], _launcher(make), SETTINGS, _limits())
    assert (first.verdict, first.timed.reason) == (Verdict.NO_DATA, "its process ended with status -9")
    assert first.found is not None
    assert (second.verdict, len(second.timed.rounds)) == (Verdict.SAME, 4)
    assert exit_code([first, second], 0.03) == Exit.NOT_JUDGED


def test_a_side_that_cannot_be_started_is_a_reason_and_no_crash() -> None:
    def refuse(_framework: str) -> AbstractContextManager[Timer]:
        msg = "no Python"
        raise MeasurementError(msg)

    assert [each.reason for each in take_rounds([A, B], refuse, _limits(), launches=3, rounds=2)] == ["no Python"] * 2


def test_cases_are_held_in_memory_as_many_as_fit() -> None:
    jax = Case(framework="jax", workload=A.workload, band=1)
    assert batches([A, jax, B], None) == [[A, B], [jax]]
    assert batches([A, B], A.held_bytes + B.held_bytes) == [[A, B]]
    assert batches([A, B], A.held_bytes + B.held_bytes - 1) == [[A], [B]]
    small, large = Case(framework="torch", workload=one_tensor(10), band=1), Case(framework="torch", workload=one_tensor(10**9), band=1)
    rng = np.random.default_rng(9)
    launch = _launcher(lambda: Played(drawn(rng, [small.name], 12, scatter=0.01)))
    fits, not_ = take_rounds([small, large], launch, Limits(time.monotonic() + LONG, most_bytes=2**20), launches=3, rounds=12)
    assert (fits.reason, len(fits.rounds), not_.rounds) == ("", 3, [])
    assert not_.reason == "not enough memory: a side takes about 22.4 GiB, 0.0 GiB are free for it"


@pytest.mark.parametrize(("scatter", "launch"), [(0.02, 0.01), (0.05, 0.0)])
def test_the_smallest_detectable_change_is_called_slower_19_times_of_20(scatter: float, launch: float) -> None:
    rng = np.random.default_rng(10)

    def compared(change: float) -> Judged:
        make = lambda: Played(drawn(rng, [A.name], 12, scatter=scatter, launch=launch), {A.name: change})  # noqa: E731  # a factory
        return compare([A], _launcher(make), SETTINGS, _limits())[0]

    stated = [found for found in (compared(1.0).detectable for _ in range(20)) if found is not None]
    called = [compared(1 + float(np.median(stated))).verdict for _ in range(40)]
    assert called.count(Verdict.SLOWER) >= 36


def test_both_sides_take_turns_and_a_steady_drift_cancels() -> None:
    class Drifting(Played):
        time = 0.0

        def sample(self, name: str, side: int, calls: int) -> float:  # noqa: ARG002  # the timer's signature
            self.time += 1
            orders.append(side)
            return 100 + self.time

    orders: list[int] = []
    (found,) = take_rounds([A], _launcher(lambda: Drifting({})), _limits(), launches=2, rounds=25, turns=True)
    assert all(base == head for launch in found.rounds for base, head in launch)
    assert {tuple(orders[i : i + 4]) for i in range(0, len(orders), 4)} == {(0, 1, 1, 0), (1, 0, 0, 1)}
    orders.clear()
    take_rounds([A], _launcher(lambda: Drifting({})), _limits(), launches=1, rounds=3, turns=False)
    assert orders == [0, 0, 1, 1] * 3


def test_the_noise_floor_is_the_largest_difference_of_equals() -> None:
    found = list(_compared(7).values())
    ratios = [each.found.ratio for each in found if each.found is not None]
    assert noise_floor(found) == max(max(ratio, 1 / ratio) - 1 for ratio in ratios)
    assert noise_floor([]) is None


@pytest.mark.parametrize(
    ("verdict", "ratio", "high", "code"),
    [
        (Verdict.SLOWER, 1.12, 1.15, Exit.CHECK_FAILED),
        (Verdict.SLOWER, 1.09, 1.15, Exit.NOT_JUDGED),  # slower, perhaps by more than is allowed
        (Verdict.SLOWER, 1.05, 1.08, Exit.DONE),
        (Verdict.UNSURE, 1.0, 1.15, Exit.NOT_JUDGED),
        (Verdict.UNSURE, 0.9, 1.08, Exit.DONE),  # faster, perhaps: no slowdown that counts
        (Verdict.FASTER, 0.8, 0.9, Exit.DONE),
        (Verdict.NO_DATA, 1.0, 1.01, Exit.NOT_JUDGED),
    ],
)
def test_the_exit_code_is_about_slowdowns_beyond_what_is_allowed(verdict: Verdict, ratio: float, high: float, code: Exit) -> None:
    found = Estimate(ratio=ratio, low=0.5, high=high, p=0.001, launches=6)
    judged = Judged(timed=Timed(A), found=found, p_adjusted=0.001, detectable=0.05, verdict=verdict)
    assert exit_code([judged], 0.10) == code


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"launches": 2}, "launches=2"),
        ({"rounds": 1}, "rounds=1"),
        ({"tolerance": 0.0}, "tolerance=0"),
        ({"fail_on": 1.5}, "fail-on=150"),
        ({"tolerance": 0.05}, "fail-on=3 is not allowed with tolerance=5"),
    ],
)
def test_settings_that_could_judge_nothing_are_refused(wrong: dict[str, float], named: str) -> None:
    with pytest.raises(InvalidConfigError, match=named):
        Settings(**wrong)  # type: ignore[arg-type]  # wrong on purpose
