from __future__ import annotations

import numpy as np
import pytest

from sonew_perf.history.changes import FEWEST, analyse, done_points, ratio_points
from sonew_perf.records.model import Point, Run
from tests.perf.history.made import a_run, a_series, commit, points_of, runs_of

NOISE = 0.01


def noisy(seed: int, count: int = 60, level: float = 5.0) -> np.ndarray:
    """A quiet machine: one percent."""
    return level * np.exp(NOISE * np.random.default_rng(seed).standard_normal(count))


def with_step(values: np.ndarray, place: int, step: float) -> np.ndarray:
    return np.where(np.arange(len(values)) < place, values, values * (1 + step))


def test_levels_and_changes_say_what_was_planted() -> None:
    medians = with_step(with_step(noisy(0), 20, 0.1), 41, -0.2)
    found = analyse(points_of(medians), runs_of(60), a_series())
    assert (found.judged, found.reason, found.against) == (True, "", "")
    assert [(level.first, level.last) for level in found.levels] == [(0, 19), (20, 40), (41, 59)]
    assert [level.level for level in found.levels] == [np.median(medians[:20]), np.median(medians[20:41]), np.median(medians[41:])]
    assert [level.noise for level in found.levels] == pytest.approx([NOISE] * 3, rel=0.5)
    slower, faster = found.changes
    assert (slower.index, slower.last_good, slower.first_bad, slower.direction) == (20, "run-0019", "run-0020", "slower")
    assert (slower.good_commit, slower.bad_commit) == (commit(19), commit(20))
    assert slower.ratio == pytest.approx(np.median(medians[20:41]) / np.median(medians[:20]), rel=1e-4)
    assert slower.bisect.startswith(f"git bisect start {commit(20)} {commit(19)} && ")
    assert (faster.index, faster.direction, faster.bisect) == (41, "faster", "")


def test_one_percent_of_noise_hides_nothing_of_three_percent_and_invents_nothing() -> None:
    runs, invented, found = runs_of(60), 0, 0
    for seed in range(40):
        place = 8 + seed
        invented += bool(analyse(points_of(noisy(seed)), runs).changes)
        changes = analyse(points_of(with_step(noisy(seed), place, 0.03)), runs).changes
        found += any(abs(change.index - place) <= 1 for change in changes)
    assert invented <= 2
    assert found >= 36


@pytest.mark.parametrize("place", [0, 1, 30, 58, 59])
def test_a_spike_is_no_change(place: int) -> None:
    for seed in range(10):
        medians = noisy(seed)
        medians[place] *= 1.25
        assert analyse(points_of(medians), runs_of(60)).changes == ()


def test_a_great_step_does_not_hide_a_small_one() -> None:
    medians = with_step(with_step(noisy(4), 15, 2.0), 40, 0.05)
    found = analyse(points_of(medians), runs_of(60))
    assert [change.index for change in found.changes] == [15, 40]
    alone = analyse(points_of(noisy(4)), runs_of(60))
    assert found.threshold == pytest.approx(alone.threshold, rel=0.2)


def test_four_results_behind_a_step_are_enough() -> None:
    hits = [analyse(points_of(with_step(noisy(seed), 56, 0.05)), runs_of(60)).changes for seed in range(20)]
    assert sum([change.index for change in changes] == [56] for changes in hits) >= 19


def test_what_repeats_to_the_last_digit_has_one_level_and_steps_are_seen() -> None:
    assert analyse(points_of(np.full(20, 1024.0)), runs_of(20)).changes == ()
    stepped = analyse(points_of(with_step(np.full(20, 1024.0), 12, 0.02)), runs_of(20))
    assert [change.index for change in stepped.changes] == [12]
    assert 0 < stepped.threshold < 0.02


def test_few_results_are_not_judged() -> None:
    few = points_of(noisy(0, FEWEST - 1))
    found = analyse(few, runs_of(60))
    assert (found.judged, found.levels, found.changes, found.reason) == (False, (), (), "7 of the 8 results that judging takes")
    assert analyse([], {}).judged is False
    assert analyse(points_of(noisy(0, FEWEST)), runs_of(60)).judged is True


def test_zero_has_no_ratio_and_is_not_judged() -> None:
    assert analyse(points_of([0.0, *noisy(0, 10)]), runs_of(11)).reason == "a result is zero, and changes are ratios"


def test_only_results_count_and_the_date_orders_them() -> None:
    points = points_of(with_step(noisy(0, 20), 10, 0.5))
    broken = [Point(series=points[0].series, run="run-0030", status="failed", reason="out of memory")]
    unknown = [Point(series=points[0].series, run="nowhere", median=1.0)]
    shuffled = [*points[::-1], *broken, *unknown]
    runs = runs_of(40)
    assert done_points(shuffled, runs) == points
    assert analyse(shuffled, runs) == analyse(points, runs)
    assert [change.index for change in analyse(shuffled, runs).changes] == [10]


def _commits(**fields: Run) -> tuple[str, str, str]:
    runs = {**runs_of(20), **{run.id: run for run in fields.values()}}
    [change] = analyse(points_of(with_step(noisy(0, 20), 10, 0.5)), runs, a_series()).changes
    assert (change.last_good, change.first_bad) == ("run-0009", "run-0010")
    return change.good_commit, change.bad_commit, change.bisect


def test_commits_are_those_of_the_nearest_clean_runs() -> None:
    """A tree with changes of its own was not the commit that its run names."""
    good, bad, bisect = _commits(one=a_run(9, modified=True), two=a_run(10, commit=""), three=a_run(11, modified=True))
    assert (good, bad) == (commit(8), commit(12))
    assert bisect.startswith(f"git bisect start {commit(12)} {commit(8)} ")


def test_unknown_commits_leave_no_command() -> None:
    good, bad, bisect = _commits(**{str(number): a_run(number, commit="") for number in range(10)})
    assert (good, bad, bisect) == ("", commit(10), "")


def test_ratio_points_have_the_ratio_as_their_number() -> None:
    points = points_of([2.0, 3.0, 4.0], copy=[10.0, 11.0, 12.0])
    points[1] = Point(series=points[1].series, run=points[1].run, median=3.0)
    points.append(Point(series=points[0].series, run="run-0003", status="failed", reason="why"))
    made = ratio_points(points, "copy")
    assert [(point.status, point.median) for point in made] == [("done", 10.0), ("skipped", None), ("done", 12.0), ("failed", None)]
    assert [point.reason for point in made] == ["", "no ratio to copy in this run", "", "why"]


def test_a_drift_of_the_whole_machine_is_no_change_where_a_peer_drifted_along() -> None:
    drift = np.where((np.arange(60) > 25) & (np.arange(60) < 45), 1.4, 1.0)
    own, peer = drift * noisy(0), drift * noisy(1, level=1.0)
    runs = runs_of(60)
    assert len(analyse(points_of(own), runs).changes) == 2
    found = analyse(points_of(own, copy=own / peer), runs)
    assert (found.changes, found.against) == ((), "copy")
    slower = with_step(own, 33, 0.08)
    found = analyse(points_of(slower, copy=slower / peer), runs)
    assert [change.index for change in found.changes] == [33]
    assert found.changes[0].ratio == pytest.approx(1.08, abs=0.015)
    assert found.levels[0].level == np.median(slower[:33])  # levels stay in the series' own unit


def test_a_change_of_the_peer_is_no_change_of_the_series() -> None:
    own, peer = noisy(0), with_step(noisy(1, level=1.0), 30, -0.3)
    found = analyse(points_of(own, optimizer=own / peer), runs_of(60))
    assert (found.changes, found.against) == ((), "")


def test_a_change_that_only_the_machine_had_is_none_though_the_ratio_is_noisy() -> None:
    """The ratio reaches further than the series itself, which is judged, but does not show half of the change."""
    rng = np.random.default_rng(2)
    machine = with_step(noisy(0), 30, 0.06)
    ratio = np.exp(0.06 * rng.standard_normal(60))
    found = analyse(points_of(machine, copy=ratio), runs_of(60))
    assert (found.changes, found.against) == ((), "")
    assert len(analyse(points_of(machine), runs_of(60)).changes) == 1
    assert len(analyse(points_of(machine, copy=with_step(ratio, 30, 0.06)), runs_of(60)).changes) == 1


def test_a_series_is_not_judged_against_itself() -> None:
    own = with_step(noisy(0), 30, 0.1)
    found = analyse(points_of(own, itself=np.ones(60)), runs_of(60))
    assert ([change.index for change in found.changes], found.against) == ([30], "")


def test_a_peer_that_not_every_run_measured_is_left_alone() -> None:
    own = with_step(noisy(0), 30, 0.1)
    points = points_of(own, copy=np.linspace(1.0, 1.001, 60))
    assert analyse(points, runs_of(60)).against == "copy"
    points[5] = points_of(own)[5]
    assert analyse(points, runs_of(60)).against == ""
