from __future__ import annotations

import math
import time
from collections.abc import Sequence

import pytest

from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.turns import DeviceBusyError
from sonew_perf.records.files import Entry
from sonew_perf.suite.budget import GRACE_S, Budget
from sonew_perf.suite.estimates import estimate_s
from sonew_perf.suite.groups import Group
from sonew_perf.suite.imports import LONGEST_S, measure_imports
from sonew_perf.suite.run import Runner, run_groups
from sonew_perf.suite.torch_process import Answer, Timed
from tests.perf.suite.made import Silence, step_group, timed

SECONDS = 20.0


class Clock:
    """A clock that only work moves."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def _run(groups: Sequence[Group], clock: Clock, runner: Runner) -> list[list[Entry]]:
    budget = Budget(seconds=SECONDS, began=1000.0, clock=clock)
    return list(run_groups(groups, lambda _: 7, told=Silence(), runner=runner, free=lambda _: None, budget=budget))


def test_a_group_that_does_not_fit_is_skipped_and_a_shorter_one_after_it_is_not() -> None:
    clock, begun = Clock(), []
    long, short = step_group(8, 16), step_group(0)
    assert 1 < estimate_s(short, 7) < estimate_s(long, 7)

    def run(group: Group, _rounds: int, _seconds: float, end: float) -> Answer:
        begun.append(group.name)
        clock.now += SECONDS - estimate_s(short, 7) - 0.01
        assert end == 1000.0 + SECONDS + GRACE_S
        return Timed(timed(group), {})

    first, refused, second = _run([step_group(1), long, short], clock, run)
    assert begun == [step_group(1).name, short.name]
    assert {entry.get("status", "done") for entry in [*first, *second]} == {"done"}
    needed, left = math.ceil(estimate_s(long, 7)), round(estimate_s(short, 7) + 0.01)
    assert {(entry["status"], entry["reason"]) for entry in refused} == {
        ("skipped", f"the budget of 20 s has {left} s left, and it takes about {needed} s")
    }


@pytest.mark.parametrize("waiting", [False, True])
def test_a_group_that_the_budget_ends_is_skipped_and_one_that_hangs_has_failed(waiting: bool) -> None:
    clock = Clock()

    def late() -> Answer:
        if waiting:
            msg = "held"
            raise DeviceBusyError(msg)
        return Failure("timeout", "no result after 9 s, the worker was stopped")

    def stopped(_group: Group, _rounds: int, _seconds: float, end: float) -> Answer:
        clock.now = end
        return late()

    (entries,) = _run([step_group(0)], clock, stopped)
    assert {(entry["status"], entry["reason"]) for entry in entries} == {("skipped", "the budget of 20 s ended while it was measured")}
    (failed,) = _run([step_group(0)], Clock(), lambda *_: late())
    assert {entry["status"] for entry in failed} == {"failed"}
    assert GRACE_S <= 5  # of the 10 seconds that a run may exceed its budget by, the rest is for printing


def test_what_crashes_as_the_budget_ends_has_failed() -> None:
    clock = Clock()

    def crash(*_arguments: object) -> Answer:
        clock.now += 2 * SECONDS
        return Failure("crash", "signal 11")

    (entries,) = _run([step_group(0)], clock, crash)
    assert {entry["reason"] for entry in entries} == {"crash: signal 11"}


def test_imports_share_what_time_there_is() -> None:
    limits: list[float] = []

    def once(_module: str, limit: float) -> float:
        limits.append(limit)
        return 1.0

    began = time.monotonic()
    measure_imports("", 7, 30.0, once=once)
    measure_imports("", 7, once=once)
    spent = time.monotonic() - began
    assert all(30.0 - spent <= limit <= 30.0 for limit in limits[:8])
    assert limits[8:] == [LONGEST_S] * 8
    late = measure_imports("", 7, -1.0)
    assert late == Failure("timeout", "import sonew had not ended after 0 s, the process was stopped")
