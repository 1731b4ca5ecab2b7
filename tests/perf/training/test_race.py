from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest

from sonew_perf.errors import RecordError
from sonew_perf.training.race import Race, Share, Standing, races
from sonew_perf.training.results import read_result
from tests.perf.training.entries import made

ADAM = [made("adam", (80.0, 60.0, 50.0), seed=0), made("adam", (84.0, 64.0, 54.0), seed=1)]  # its mean curve is 82, 62, 52


def _only(entries: list[dict[str, Any]]) -> Race:
    (race,) = races(entries)
    return race


def _standing(entries: list[dict[str, Any]], label: str = "SONew band 1") -> Standing:
    return next(standing for standing in _only(entries).standings if standing.method.label == label)


def test_the_target_is_the_mean_over_the_seeds_of_the_baselines_last_loss() -> None:
    standing = _standing(ADAM, "Adam")
    assert (standing.target, standing.reached) == (52.0, (30.0,))
    assert standing.steps == standing.wall == standing.optimizer == Share(1.0, 1.0, 1.0)


def test_steps_to_the_target_lie_on_the_line_between_two_means_seed_by_seed() -> None:
    ours = [made("sonew", (72.0, 42.0, 40.0), seed=0), made("sonew", (60.0, 56.0, 46.0), seed=1)]
    standing = _standing(ADAM + ours)
    assert standing.reached == pytest.approx((10 + 10 * 20 / 30, 20 + 10 * 4 / 10))
    assert standing.steps is not None
    found = standing.steps.mean, standing.steps.low, standing.steps.high
    assert found == pytest.approx(((50 / 3 + 24) / 2 / 30, 50 / 3 / 30, 24 / 30))


def test_a_first_mean_below_the_target_is_reached_at_its_end() -> None:
    assert _standing([*ADAM, made("sonew", (52.0, 60.0, 70.0))]).reached == (10.0,)


def test_the_last_window_may_be_shorter() -> None:
    short = {"steps": 24, "schedule_steps": 24}
    standing = _standing([made("adam", (80.0, 60.0, 50.0), **short), made("sonew", (90.0, 60.0, 40.0), **short)])
    assert standing.reached == (22.0,)
    assert standing.steps == Share(22 / 24, 22 / 24, 22 / 24)


def test_wall_and_optimizer_time_are_steps_times_the_time_of_a_step_with_the_least_gradient_time_of_any_method() -> None:
    ours = made("sonew", (72.0, 52.0, 40.0), step_s=0.15, optimizer_step_s=0.03)  # 0.12 outside the optimizer, where Adam shows 0.09
    standing = _standing([*ADAM, ours])
    shares = standing.steps, standing.wall, standing.optimizer
    assert [share.mean for share in shares if share is not None] == pytest.approx([2 / 3, 2 / 3 * 0.12 / 0.1, 2 / 3 * 3])


def test_the_gradient_of_another_framework_or_precision_is_other_work() -> None:
    others = [made("soap", (72.0,), framework="jax", label="SOAP, JAX", step_s=0.02), made("soap", (72.0,), precision="bf16", step_s=0.03)]
    assert _standing([*others, made("sonew", (72.0,), step_s=0.15)]).method.step_s == 0.15


def test_the_time_of_a_step_is_the_least_of_all_runs_of_the_method() -> None:
    runs = [made("sonew", (9.0,), seed=seed, lr=lr, step_s=s, optimizer_step_s=s / 2) for seed, lr, s in ((0, 1.0, 0.3), (0, 2.0, 0.2))]
    (standing,) = _only(runs).standings
    assert (standing.method.step_s, standing.method.optimizer_step_s) == (0.2, 0.1)


def test_a_seed_that_never_gets_there_leaves_no_share() -> None:
    standing = _standing([*ADAM, made("sonew", (72.0, 52.0, 40.0), seed=0), made("sonew", (72.0, 53.0, 52.5), seed=1)])
    assert standing.reached == (20.0, None)
    assert (standing.steps, standing.wall, standing.optimizer) == (None, None, None)


def test_a_run_that_diverged_on_its_way_is_not_there() -> None:
    standing = _standing([*ADAM, made("sonew", (72.0, None, None))])
    assert (standing.reached, standing.steps, standing.method.loss) == ((None,), None, math.inf)


def test_a_baseline_that_diverged_sets_no_target() -> None:
    standing = _standing([made("adam", (80.0, None)), made("sonew", (72.0, 40.0))])
    assert (standing.baseline, standing.target, standing.steps) == (None, math.inf, None)


def test_each_method_stands_at_its_best_learning_rate() -> None:
    adam = [made("adam", (80.0, last), lr=lr, seed=seed) for lr, last in ((1.0, 60.0), (2.0, 50.0), (3.0, 55.0)) for seed in (0, 1)]
    race = _only([*adam, made("sonew", (70.0, 40.0), lr=7.0, seed=0), made("sonew", (70.0, 42.0), lr=7.0, seed=1)])
    theirs, ours = (standing.method for standing in race.standings)
    assert (theirs.grid.best.lr, theirs.loss, theirs.grid.inside) == (2.0, 50.0, True)
    assert [cell.lr for cell in theirs.grid.cells] == [1.0, 2.0, 3.0]
    assert (ours.grid.best.lr, ours.loss, ours.grid.is_grid) == (7.0, 41.0, False)
    assert [result.lr for result in theirs.results] == [2.0, 2.0]
    assert race.standings[1].target == 50.0


def test_settings_that_differ_in_more_than_the_rate_are_no_grid() -> None:
    runs = [made("adam", (50.0,), lr=1.0, hyper={"lr": 1.0, "eps": 1e-8}), made("adam", (40.0,), lr=2.0, hyper={"lr": 2.0, "eps": 1e-6})]
    grid = _standing(runs, "Adam").method.grid
    assert (grid.best.lr, grid.is_grid) == (2.0, False)


def test_settings_with_fewer_seeds_do_not_win() -> None:
    standing = _standing([*ADAM, made("adam", (80.0, 60.0, 10.0), lr=5.0)], "Adam")
    assert (standing.method.grid.best.lr, standing.target) == (1e-3, 52.0)


def test_of_a_run_that_was_repeated_the_last_counts() -> None:
    standing = _standing([*ADAM, made("adam", (84.0, 64.0, 60.0), seed=1)], "Adam")
    assert standing.target == 55.0


@pytest.mark.parametrize(
    "changed",
    [
        {"task": "text"},
        {"batch": 50},
        {"schedule_steps": 60},
        {"lr_rule": "constant"},
        {"data": {"name": "images", "sha256": "1" * 64}},
        {"machine": {"device": "Some CPU", "type": "cpu", "threads": 1}},
        {"machine": {"device": "Some CPU", "type": "cpu", "threads": 2, "flags": "avx2"}},
        {"steps": 28},
    ],
)
def test_runs_under_other_conditions_are_another_race(changed: dict[str, Any]) -> None:
    found = races([*ADAM, made("sonew", (70.0, 50.0, 40.0), **changed)])
    assert [len(race.standings) for race in found] == [1, 1]
    assert found[1].standings[0].baseline is None


def test_a_method_is_held_against_the_baseline_of_its_framework() -> None:
    jax: dict[str, Any] = {"framework": "jax", "label": "Adam, JAX"}
    ours = made("sonew", (70.0, 50.0, 40.0), framework="jax", label="SONew band 1, JAX")
    for theirs, expected in (([*ADAM, made("adam", (80.0, 60.0, 45.0), **jax)], ("Adam, JAX", 45.0)), (ADAM, ("Adam", 52.0))):
        standing = _standing([*theirs, ours], "SONew band 1, JAX")
        assert standing.baseline is not None
        assert (standing.baseline.label, standing.target) == expected


def test_where_adam_was_not_trained_adamw_is_the_baseline() -> None:
    adamw = made("adam", (80.0, 60.0, 44.0), label="AdamW") | {"method": "adamw"}
    assert _standing([adamw, made("sonew", (70.0, 50.0, 40.0))]).target == 44.0
    assert _standing([adamw, *ADAM, made("sonew", (70.0, 50.0, 40.0))]).target == 52.0


def test_the_baseline_is_in_full_precision_or_else_in_the_methods_own() -> None:
    narrow: dict[str, Any] = {"precision": "bf16"}
    adam, ours = made("adam", (80.0, 60.0), **narrow, label="Adam, bf16"), made("sonew", (70.0, 50.0), **narrow, label="SONew, bf16")
    assert _standing([adam, made("sonew", (70.0, 50.0))]).baseline is None
    assert _standing([adam, ours], "SONew, bf16").target == 60.0
    assert _standing([adam, made("adam", (80.0, 55.0)), ours], "SONew, bf16").target == 55.0


def test_state_and_the_largest_fallback_of_a_layer_at_the_end_are_told() -> None:
    counted = [{"layers": {"a": [0.5, 0.1], "b": [0.0, 0.2]}}, {"layers": {"a": [0.9, 0.3], "b": [0.0, 0.0]}}]
    runs = [made("sonew", (70.0, 50.0), seed=seed, fallback=shares, state_bytes=123) for seed, shares in enumerate(counted)]
    method = _standing(runs).method
    assert (method.fallback, method.state_bytes) == (0.3, 123)


def test_other_entries_are_left_out() -> None:
    older = made("adam", (80.0, 60.0, 10.0))
    del older["label"]
    assert _standing([*ADAM, older, {"kind": "step time"}], "Adam").target == 52.0
    assert races([older]) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"step_s": 0}, "step_s is 0, expected a number above 0"),
        ({"losses": [1.0]}, "losses is a JSON list, expected a list of 2 numbers and nulls"),
        ({"loss": "low"}, "loss is 'low', expected a number that is not negative"),
        ({"optimizer_step_s": 0.2}, "optimizer_step_s is 0.2, expected at most the 0.1 of a step"),
        ({"plans": [{"backend": "cpu"}]}, "plans 1: provenance is missing, expected text"),
        ({"machine": {"device": "Some CPU", "type": "cpu", "torch": "\x1b[2J"}}, "torch is '\\x1b[2J', expected a printable name"),
        ({"losses_every": 0}, "losses_every is 0, expected a whole number of at least 1"),
        ({"hyper": 3}, "hyper is 3, expected an object"),
        ({"label": 3}, "label is 3, expected text"),
        ({"fallback": {"layers": {"a": ["b"]}}}, "a is a JSON list, expected a list of numbers"),
    ],
)
def test_a_damaged_entry_is_named(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(RecordError, match=r"training run .* of '2026-run'") as raised:
        races([made("adam", (2.0, 1.0), run="2026-run") | changed])
    assert said in str(raised.value)


def test_what_an_entry_leaves_out_is_nothing() -> None:
    """A loss: training diverged; shares of a layer: nobody counted there."""
    entry = made("sonew", (2.0, 1.0), fallback={"layers": {"a": [0.5, 0.25], "b": None, "c": []}})
    del entry["loss"], entry["plans"]
    result = read_result(entry)
    assert result is not None
    assert (result.layers, result.fallback) == ({"a": (0.5, 0.25)}, 0.25)
    assert (result.entry["loss"], result.entry["plans"]) == (None, [])
    assert _standing([entry]).method.loss == math.inf


def test_no_framework_is_loaded() -> None:
    code = "import sys, sonew_perf.training.race; print(sorted({'torch', 'jax', 'optuna'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
