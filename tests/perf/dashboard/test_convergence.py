from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest

from sonew_autotune.problems import MODELS
from sonew_perf.dashboard.documents import document
from sonew_perf.dashboard.views.older_training import ELEMENTS
from sonew_perf.records.machines import describe
from tests.perf.dashboard.made import CPU, GPU, FakeIndex, a_run, a_training, content

RUN = a_run(0)


def races(*entries: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = document(content(FakeIndex([RUN, a_run(1, label="")], training=entries)), "convergence")["races"]
    return found


def lines(*entries: dict[str, Any]) -> list[dict[str, Any]]:
    (race,) = races(*entries)
    found: list[dict[str, Any]] = race["lines"]
    return found


def older(method: str, rate: float, seed: int, loss: float | str | None, **more: Any) -> dict[str, Any]:
    """A training entry of three steps, as they were recorded until 2026-11-23."""
    band = 1 if method == "sonew" else 0
    base = {"kind": "training run", "task": "autoencoder", "method": method, "band": band, "lr": rate, "seed": seed, "steps": 3}
    base |= {"batch": 1000, "run": RUN.id, "hyper": {"betas": [0.9, 0.99], "eps": 1e-8}}
    return {**base, "loss": loss, "losses": [9.0, 5.0, loss], "wall_s": 6.0, "optimizer_s": 1.5, **more}


def sonew(seed: int, losses: Sequence[float | None], rate: float = 0.1, **more: Any) -> dict[str, Any]:
    return a_training(RUN, "sonew", 1, rate, seed, losses, **more)


def adam(seed: int, losses: Sequence[float | None], rate: float = 0.1, **more: Any) -> dict[str, Any]:
    return a_training(RUN, "adam", None, rate, seed, losses, **more)


def test_a_line_is_the_mean_over_the_seeds_with_their_range_each_mean_at_its_windows_end() -> None:
    (line,) = lines(sonew(0, [10.0, 8.0, 5.0], steps=150), sonew(1, [12.0, 6.0, 5.5], steps=150))
    assert (line["steps"], line["loss"]) == ([60, 120, 150], [11.0, 7.0, 5.25])
    assert (line["low"], line["high"], line["seeds"]) == ([10.0, 6.0, 5.0], [12.0, 8.0, 5.5], [0, 1])
    assert (line["final"], line["final_low"], line["final_high"]) == (5.25, 5.0, 5.5)
    assert (line["lr"], line["settings"]) == (0.1, {"beta1": "0.9", "beta2": "0.99", "eps": "1e-08"})
    assert (line["label"], line["band"], line["state_bytes"]) == ("SONew band 1", 1, 4 * 2837314 * 3)


def test_shares_are_of_what_adam_needs_to_its_own_end() -> None:
    ours, theirs = lines(sonew(0, [100.0, 0.0]), adam(0, [100.0, 52.0]), adam(1, [90.0, 48.0]))
    assert (ours["baseline"], ours["reached"]) == ("Adam", 90.0)  # half of the way from 60 to 120 steps, where it is at 50
    assert {name: share["mean"] for name, share in ours["shares"].items()} == {"steps": 0.75, "wall": 0.9, "optimizer": 1.5}
    assert theirs["shares"]["optimizer"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    (race,) = races(sonew(0, [100.0, 0.0]), adam(0, [100.0, 52.0]), adam(1, [90.0, 48.0]))
    assert race["baselines"] == [{"label": "Adam", "loss": 50.0}]


def test_who_never_gets_there_has_no_share_and_without_adam_nobody_has() -> None:
    ours, _ = lines(sonew(0, [100.0, 51.0]), adam(0, [100.0, 50.0]))
    assert (ours["reached"], ours["shares"]) == (None, {"steps": None, "wall": None, "optimizer": None})
    (alone,) = races(sonew(0, [100.0, 51.0]))
    assert (alone["baselines"], alone["lines"][0]["baseline"]) == ([], None)


def test_seconds_are_the_least_of_the_optimizer_and_of_the_rest() -> None:
    best, other = lines(sonew(0, [3.0], step_s=0.2, optimizer_step_s=0.04), sonew(0, [4.0], rate=0.2, step_s=0.1, optimizer_step_s=0.05))
    assert (best["lr"], best["best"], other["lr"], other["best"]) == (0.1, True, 0.2, False)
    assert {(line["seconds_per_step"], line["optimizer_seconds_per_step"]) for line in (best, other)} == {(0.09, 0.04)}


def test_only_what_may_be_compared_is_in_one_race_and_the_fullest_comes_first() -> None:
    long, gpu = [5.0, 4.0, 3.0], describe(GPU)
    found = races(sonew(0, [5.0]), sonew(0, [5.0], schedule_steps=120), sonew(0, long), adam(0, long), adam(0, long, machine=gpu))
    assert [(race["steps"], race["schedule_steps"], race["machine"], len(race["lines"])) for race in found] == [
        (180, 180, CPU.name, 2),
        (180, 180, GPU.name, 1),
        (60, 60, CPU.name, 1),
        (60, 120, CPU.name, 1),
    ]
    assert len({race["id"] for race in found}) == 4


def test_a_seed_that_diverged_ends_the_line_and_has_no_final_loss() -> None:
    (line,) = lines(sonew(0, [9.0, 8.0]), sonew(1, [9.0, None]))
    assert (line["loss"], line["low"], line["high"], line["final"]) == ([9.0, None], [9.0, 8.0], [9.0, None], None)


def test_columns_that_fell_back_are_the_mean_over_the_seeds_layer_by_layer() -> None:
    shares = [{"layers": {"0.weight": [0.5, 0.25], "2.weight": [0.0, 0.0]}}, {"layers": {"0.weight": [0.7, 0.05], "2.weight": [0.0, 0.5]}}]
    counted, plain = lines(*(sonew(seed, [9.0, 8.0], fallback=shares[seed]) for seed in (0, 1)), adam(0, [9.0, 8.0]))
    assert counted["fallback"] == {"steps": [60, 120], "layers": {"0.weight": [0.6, 0.15], "2.weight": [0.0, 0.25]}}
    assert plain["fallback"] is None


BROKEN = ({"losses": [1.0, "x"]}, {"losses": None}, {"losses_every": 0}, {"step_s": None}, {"data": None}, {"fallback": {"layers": [1]}})


@pytest.mark.parametrize("broken", BROKEN)
def test_an_entry_that_lacks_what_a_curve_needs_is_left_out(broken: dict[str, Any]) -> None:
    assert races(sonew(0, [9.0, 8.0]) | broken) == []
    assert len(lines(sonew(0, [9.0, 8.0]) | broken, adam(0, [9.0, 8.0]))) == 1


def test_a_long_curve_keeps_two_hundred_losses_with_both_ends() -> None:
    (line,) = lines(sonew(0, [float(mean) for mean in range(1, 1001)]))
    assert (len(line["steps"]), line["steps"][0], line["steps"][-1]) == (200, 60, 60_000)
    assert line["steps"] == [60 * loss for loss in line["loss"]]
    assert (line["low"], line["high"]) == (None, None)  # of one seed


def test_runs_name_their_record_and_of_a_repeated_one_the_last_counts() -> None:
    (race,) = races(sonew(0, [9.0, 8.0]), sonew(0, [9.0, 7.0]) | {"run": a_run(1).id}, sonew(0, [9.0, 7.5], rate=0.2))
    assert [(run["run_name"], run["final"], run["best"]) for run in race["runs"]] == [
        ("nightly 0", 8.0, True),
        ("1", 7.0, True),
        ("nightly 0", 7.5, False),
    ]
    assert [(line["final"], line["best"]) for line in race["lines"]] == [(7.0, True), (7.5, False)]


def test_the_best_rate_of_an_older_record_is_that_of_the_least_mean_and_never_one_that_diverged() -> None:
    entries = [
        older("sonew", 0.1, 0, 4.0),
        older("sonew", 0.1, 1, 2.0),
        older("sonew", 0.2, 0, 1.0),
        older("sonew", 0.2, 1, None),
        older("adamw", 0.3, 0, 7.0),
        older("adamw", 0.3, 1, 7.0),
        older("adamw", 0.4, 0, "broken", losses="none"),
        older("adamw", 0.1, 0, 1.0, band="1"),
    ]
    (race,) = races(*entries)
    best = [line for line in race["lines"] if line["best"]]
    assert [(line["label"], line["lr"], line["final"]) for line in best] == [("SONew band 1", 0.1, 3.0), ("AdamW", 0.3, 7.0)]
    first = best[0]
    assert (first["seconds_per_step"], first["optimizer_seconds_per_step"]) == (2.0, 0.5)
    assert (first["state_bytes"], best[1]["state_bytes"]) == (2837314 * 12, 2837314 * 8)
    assert (first["steps"], first["loss"], first["band"], best[1]["band"]) == ([1, 2, 3], [9.0, 5.0, 3.0], 1, None)
    assert first["settings"] == {"beta1": "0.9", "beta2": "0.99", "eps": "1e-08"}
    assert len(race["runs"]) == 6


def test_an_older_record_without_a_result_ends_where_its_last_steps_do_and_says_its_gamma() -> None:
    entry = older("sonew", 0.1, 0, None, losses=[50.0, *[2.0] * 19, 4.0], steps=21, hyper={"gamma": 0.0})
    del entry["loss"]
    (line,) = lines(entry)
    assert (line["label"], line["final"]) == ("SONew band 1, gamma 0", 2.1)


def test_the_elements_of_a_task_are_those_of_its_model() -> None:
    assert {"autoencoder": sum(map(math.prod, MODELS["mnist-autoencoder"]))} == ELEMENTS


def test_the_view_is_plain_json() -> None:
    found = races(sonew(0, [9.0, None]), adam(0, [9.0, 8.0]), older("adamw", 0.1, 0, 1.0))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
