"""Studies of a function of numbers: what is tried, what ends early, and what survives a death. The function is a formula."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState

from sonew.errors import InvalidConfigError
from sonew_autotune.search.minimizing import MAX_DEATHS, OUTCOME, Axis, Hear, PrunedError, Pruning, Tried, best_of, minimize, read_trials
from sonew_autotune.search.opening import SUBJECT, open_study
from sonew_autotune.store.journal import LockedError

AXES = {"a": Axis(1e-3, 1e1), "b": Axis(1e-6, 1e-2)}
FLOATS: dict[str, BaseDistribution] = {name: FloatDistribution(axis.low, axis.high, log=True) for name, axis in AXES.items()}
BEST = {"a": 0.1, "b": 1e-4}
STEPS = 4


def distance(point: Mapping[str, float]) -> float:
    """Decades away from BEST."""
    return math.hypot(*(math.log10(point[name] / value) for name, value in BEST.items()))


class Function:
    """Keeps what it is asked and tells `STEPS` values on the way; raises in one call, diverges where `a` is large."""

    def __init__(self, *, raise_in: int | None = None, limit: float = math.inf) -> None:
        self.asked: list[dict[str, float]] = []
        self.raise_in, self.limit = raise_in, limit

    def __call__(self, point: Mapping[str, float], hear: Hear) -> float:
        self.asked.append(dict(point))
        if len(self.asked) == self.raise_in:
            raise KeyboardInterrupt
        for step in range(STEPS):
            if point["a"] > self.limit:
                hear(step, math.nan)
                return math.inf
            hear(step, distance(point) + STEPS - step)
        return distance(point)


def _outcomes(trials: list[Tried]) -> dict[str, int]:
    return {outcome: sum(trial.outcome == outcome for trial in trials) for outcome in {trial.outcome for trial in trials}}


def test_a_search_begins_where_it_is_told_to_and_comes_nearer(tmp_path: Path) -> None:
    function, first = Function(), {"a": 1.0, "b": 1e-3}
    told: list[Tried] = []
    with open_study(tmp_path, "s", seed=0, subject={"what": "a formula"}) as study:
        trials = minimize(study, AXES, function, trials=16, first=[first, first], told=told.append)
        assert study.user_attrs[SUBJECT] == {"what": "a formula"}
    assert function.asked[0] == first
    assert function.asked.count(first) == 1
    assert told == trials
    assert [dict(trial.point) for trial in trials] == function.asked
    assert all(axis.low <= point[name] <= axis.high for point in function.asked for name, axis in AXES.items())
    assert [trial.value for trial in trials] == pytest.approx([distance(point) for point in function.asked])
    assert _outcomes(trials) == {"finished": 16}
    best = best_of(trials)
    assert best is not None
    assert best.value == min(map(distance, function.asked)) < 0.5


def test_an_interrupted_search_goes_on_with_the_point_it_was_at(tmp_path: Path) -> None:
    first, second, third = Function(raise_in=3), Function(), Function()
    with pytest.raises(KeyboardInterrupt), open_study(tmp_path, "s", seed=0) as study:
        minimize(study, AXES, first, trials=6)
    with open_study(tmp_path, "s", seed=0) as study:
        assert [dict(trial.point) for trial in read_trials(study, AXES)] == first.asked[:2]
        assert len(minimize(study, AXES, second, trials=6)) == 6
    assert second.asked[0] == first.asked[2]
    assert len({point["a"] for point in first.asked[:2] + second.asked}) == 6  # other proposals than the first time
    with open_study(tmp_path, "s", seed=0) as study:
        assert len(minimize(study, AXES, third, trials=6)) == 6
    assert third.asked == []


def test_the_point_of_a_killed_process_is_tried_again_until_too_many_died(tmp_path: Path) -> None:
    points = []
    for _ in range(MAX_DEATHS):
        with open_study(tmp_path, "s", seed=0) as study:
            points.append(study.ask(FLOATS).params)  # and no word of it any more
    assert all(point == points[0] for point in points)
    function = Function()
    with open_study(tmp_path, "s", seed=0) as study:
        assert [trial.state for trial in study.trials] == [TrialState.FAIL] * MAX_DEATHS
        assert len(minimize(study, AXES, function, trials=2)) == 2
    assert points[0] not in function.asked


def test_a_first_point_whose_process_died_before_it_began_is_not_lost(tmp_path: Path) -> None:
    function, first = Function(), {"a": 1.0, "b": 1e-3}
    with open_study(tmp_path, "s") as study:
        study.enqueue_trial(first)
        study.ask()
    with open_study(tmp_path, "s") as study:
        minimize(study, AXES, function, trials=2, first=[first])
    assert function.asked[0] == first


def test_a_trial_counts_from_the_moment_that_it_carries_its_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_arguments: object, **_more: object) -> None:
        raise KeyboardInterrupt

    with open_study(tmp_path, "s") as study:
        monkeypatch.setattr(study, "tell", die)
        with pytest.raises(KeyboardInterrupt):
            minimize(study, AXES, Function(), trials=1)
    function = Function()
    with open_study(tmp_path, "s") as study:
        assert len(read_trials(study, AXES)) == 1
        assert len(minimize(study, AXES, function, trials=2)) == 2
    assert len(function.asked) == 1


def test_bad_trials_end_early_but_not_before_there_is_a_median(tmp_path: Path) -> None:
    queued = [{"a": value, "b": 1e-4} for value in (0.1, 1.0, 0.2, 10.0, 0.15, 9.0)]
    function = Function()
    with open_study(tmp_path, "s", pruning=Pruning(after_trials=3, after_steps=2)) as study:
        trials = minimize(study, AXES, function, trials=len(queued), first=queued)
    # the median of three is that of 0.2; then 10 is above it, 0.15 below, and 9 above that of four
    assert [trial.outcome for trial in trials] == ["finished"] * 3 + ["pruned", "finished", "pruned"]
    assert [trial.heard for trial in trials] == [4, 4, 4, 3, 4, 3]
    assert trials[3].value == pytest.approx(2.0 + 2)  # the last it told, two decades away
    assert best_of(trials) == trials[0]
    assert best_of(trials[3:4]) is None


def test_a_function_that_is_over_anyway_may_ignore_that_it_promises_little(tmp_path: Path) -> None:
    ended: list[float] = []

    def over(point: Mapping[str, float], hear: Hear) -> float:
        try:
            hear(0, distance(point))
        except PrunedError:
            ended.append(point["a"])
        return distance(point)

    with open_study(tmp_path, "s", pruning=Pruning(after_trials=1)) as study:
        trials = minimize(study, AXES, over, trials=2, first=[BEST, {"a": 10.0, "b": 1e-4}])
    assert ended == [10.0]
    assert _outcomes(trials) == {"finished": 2}


def test_a_diverged_trial_counts_and_is_nothing_to_compare_with(tmp_path: Path) -> None:
    queued = [{"a": value, "b": 1e-4} for value in (5.0, 6.0, 1.0, 0.1)]
    with open_study(tmp_path, "s", pruning=Pruning(after_trials=1)) as study:
        trials = minimize(study, AXES, Function(limit=2.0), trials=4, first=queued)
    assert [(trial.outcome, trial.heard) for trial in trials] == [("diverged", 1)] * 2 + [("finished", STEPS)] * 2
    assert [trial.value for trial in trials[:2]] == [None, None]
    assert best_of(trials) == trials[3]
    assert best_of(trials[:2]) is None
    with open_study(tmp_path, "s") as study:
        assert read_trials(study, AXES) == trials


@pytest.mark.parametrize(
    "planted",
    [
        None,
        {"outcome": "won", "value": 1.0, "heard": 1, "seconds": 1.0, "date": ""},
        {"outcome": "finished", "value": None, "heard": 1, "seconds": 1.0, "date": ""},
        {"outcome": "finished", "value": "1", "heard": 1, "seconds": 1.0, "date": ""},
        {"outcome": "pruned", "value": 1.0, "heard": 1, "date": ""},
    ],
)
def test_a_trial_that_carries_something_else_does_not_count(tmp_path: Path, planted: object) -> None:
    with open_study(tmp_path, "s") as study:
        minimize(study, AXES, Function(), trials=1)
        trial = study.ask(FLOATS)
        trial.set_user_attr(OUTCOME, planted)
        study.tell(trial, 1.0)
        assert len(read_trials(study, AXES)) == 1


def test_fresh_forgets_and_another_name_is_another_study(tmp_path: Path) -> None:
    for name, fresh, known in (("a", False, 0), ("a", False, 2), ("b", False, 0), ("a", True, 0)):
        with open_study(tmp_path, name, fresh=fresh) as study:
            assert len(read_trials(study, AXES)) == known
            minimize(study, AXES, Function(), trials=2)


def test_a_study_is_alone_on_its_journal(tmp_path: Path) -> None:
    with open_study(tmp_path, "s"), pytest.raises(LockedError, match="another process"), open_study(tmp_path, "s"):
        pass


def test_a_broken_journal_is_set_aside_with_a_word(tmp_path: Path) -> None:
    with open_study(tmp_path, "s") as study:
        minimize(study, AXES, Function(), trials=2)
    path = tmp_path / "s.journal"
    path.write_bytes(path.read_bytes() + b'{"op_code": 99}\n')
    said: list[str] = []
    with open_study(tmp_path, "s", warn=said.append) as study:
        assert read_trials(study, AXES) == []
    (aside,) = tmp_path.glob("s.journal.corrupt-*")
    assert [str(aside) in line for line in said] == [True]


def test_an_unknown_sampler_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match=r"sampler='magic' is not one of"), open_study(tmp_path, "s", sampler="magic"):
        pass
    assert list(tmp_path.iterdir()) == []
