from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np
import pytest

from sonew.errors import InvalidConfigError
from sonew_autotune.settings import Exit
from sonew_perf.compare.comparison import Judged, Settings, compare, exit_code, noise_floor
from sonew_perf.compare.rounds import Timer, take_rounds
from sonew_perf.compare.verdicts import Verdict
from sonew_perf.errors import MeasurementError
from tests.perf.compare.played import Played, case, drawn

SETTINGS = Settings(launches=4, rounds=12)
A, B = case("a"), case("bb")


def _launcher(make: Callable[[], Played]) -> Callable[[str], AbstractContextManager[Timer]]:
    return lambda _framework: make().entered()


def _compared(
    seed: int, *, slower: dict[str, float] | None = None, scatter: float = 0.01, settings: Settings = SETTINGS
) -> dict[str, Judged]:
    rng = np.random.default_rng(seed)
    launch = _launcher(lambda: Played(drawn(rng, [A.name, B.name], settings.rounds, scatter=scatter), slower or {}))
    return {each.timed.case.name: each for each in compare([A, B], launch, settings)}


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
    (found,) = compare([A], launch, SETTINGS)
    assert found.verdict == Verdict.UNSURE
    assert found.confirmed is not True
    assert exit_code([found], 0.03) == Exit.NOT_JUDGED


def test_noise_that_could_hide_a_slowdown_is_exit_code_3() -> None:
    found = list(_compared(3, scatter=0.5).values())
    assert {each.verdict for each in found} == {Verdict.UNSURE}
    assert exit_code(found, 0.03) == Exit.NOT_JUDGED
    assert all(each.found is not None and each.found.detectable > 0.1 for each in found)


def test_without_time_for_a_second_measurement_nothing_is_called_changed() -> None:
    rng = np.random.default_rng(4)
    launch = _launcher(lambda: Played(drawn(rng, [A.name], 12, scatter=0.002), {A.name: 1.2}))
    (found,) = compare([A], launch, Settings(launches=3, rounds=12, budget_s=1e-9))
    assert len(found.timed.rounds) == 2  # two launches are begun whatever the budget, and are too few to judge
    assert found.verdict == Verdict.NO_DATA


def test_a_case_that_one_side_cannot_build_has_no_data_and_a_reason() -> None:
    rng = np.random.default_rng(5)
    launch = _launcher(lambda: Played(drawn(rng, [A.name, B.name], 12, scatter=0.01), broken=frozenset({A.name})))
    first, second = compare([A, B], launch, SETTINGS)
    assert (first.verdict, first.timed.reason) == (Verdict.NO_DATA, "no such kernel")
    assert second.verdict == Verdict.SAME
    assert exit_code([first, second], 0.03) == Exit.NOT_JUDGED


def test_a_side_that_dies_is_a_reason_and_no_crash() -> None:
    rng = np.random.default_rng(6)
    dying = take_rounds(
        [A, B], _launcher(lambda: Played(drawn(rng, [A.name, B.name], 12, scatter=0.01), dies_after=30)), launches=3, rounds=12
    )
    assert {each.reason for each in dying} == {"its process ended with status -9"}

    def refuse(_framework: str) -> AbstractContextManager[Timer]:
        msg = "no Python"
        raise MeasurementError(msg)

    assert [each.reason for each in take_rounds([A, B], refuse, launches=3, rounds=2)] == ["no Python"] * 2


def test_both_sides_take_turns_and_a_steady_drift_cancels() -> None:
    class Drifting(Played):
        time = 0.0

        def sample(self, name: str, side: int, calls: int) -> float:  # noqa: ARG002  # the timer's signature
            self.time += 1
            orders.append(side)
            return 100 + self.time

    orders: list[int] = []
    (found,) = take_rounds([A], _launcher(lambda: Drifting({})), launches=2, rounds=25, turns=True)
    assert all(base == head for launch in found.rounds for base, head in launch)
    assert {tuple(orders[i : i + 4]) for i in range(0, len(orders), 4)} == {(0, 1, 1, 0), (1, 0, 0, 1)}
    orders.clear()
    take_rounds([A], _launcher(lambda: Drifting({})), launches=1, rounds=3, turns=False)
    assert orders == [0, 0, 1, 1] * 3


def test_the_noise_floor_is_the_largest_difference_of_equals() -> None:
    found = list(_compared(7).values())
    ratios = [each.found.ratio for each in found if each.found is not None]
    assert noise_floor(found) == max(max(ratio, 1 / ratio) - 1 for ratio in ratios)
    assert noise_floor([]) is None


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"launches": 2}, "launches=2"), ({"rounds": 1}, "rounds=1"), ({"tolerance": 0.0}, "tolerance=0"), ({"fail_on": 1.5}, "fail-on=150")],
)
def test_settings_that_could_judge_nothing_are_refused(wrong: dict[str, float], named: str) -> None:
    with pytest.raises(InvalidConfigError, match=named):
        Settings(**wrong)  # type: ignore[arg-type]  # wrong on purpose
