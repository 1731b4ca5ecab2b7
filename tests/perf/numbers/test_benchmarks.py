from __future__ import annotations

from typing import Any

import pytest

from sonew_perf.errors import RecordError
from sonew_perf.numbers import benchmarks
from sonew_perf.numbers.record import Record
from tests.perf.training.entries import made

MACHINE = {"device": "Some CPU", "type": "cpu", "threads": 2, "torch": "2.13.0", "python": "3.11.7"}


def _record(name: str, *entries: dict[str, Any]) -> Record:
    return Record(name, [entry | {"machine": MACHINE} for entry in entries], f"[record]({name})")


def _rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_an_epochs_loss_stands_beside_what_it_must_be() -> None:
    runs = [made("adam", (90.0, 62.0), seed=0), made("adam", (90.0, 58.0), seed=1), made("sonew", (80.0, 44.0))]
    expected = {"Adam": (60.0, 0.07), "SONew band 1": (40.0, 0.04)}
    text = benchmarks.epoch(_record("a.json", *runs), number=2, expected=expected, command="train")
    assert _rows(text) == [
        ["Adam", "2", "60.00 (58.00 to 62.00)", "60 ± 7 %", "+0.0 %"],
        ["SONew band 1", "1", "44.00 (44.00 to 44.00)", "40 ± 4 %", "+10.0 %, **outside**"],
    ]
    assert "`train` ([record](a.json)). Some CPU, 2 threads" in text


def test_an_idea_wins_only_with_every_seed_below_every_plain_one() -> None:
    plain = [made("sonew", (50.0,), seed=0), made("sonew", (52.0,), seed=1)]
    better = [made("sonew", (48.0,), seed=0, label="good"), made("sonew", (49.9,), seed=1, label="good")]
    mixed = [made("sonew", (40.0,), seed=0, label="mixed"), made("sonew", (50.0,), seed=1, label="mixed")]
    text = benchmarks.ideas(_record("a.json", *plain), _record("b.json", *better, *mixed), plain="SONew band 1", command="train")
    assert [(row[0], row[2], row[3]) for row in _rows(text)] == [
        ("SONew band 1", "-", "-"),
        ("good", "-4.0 %", "wins"),
        ("mixed", "-11.8 %", "dropped"),
    ]


def test_without_the_plain_method_nothing_is_judged() -> None:
    with pytest.raises(RecordError, match=r"have no method 'SONew band 4'; they have \['Adam'\]\. Name the plain method"):
        benchmarks.ideas(_record("a.json", made("adam", (50.0,))), plain="SONew band 4", command="train")


def test_narrow_state_is_held_to_one_percent_and_shows_which_layers_fall_back() -> None:
    layers = {"0.weight": [0.5, 0.1], "2.weight": [0.5, 0.25], "0.bias": [0.9, 0.9]}
    hyper = {"lr": 1e-3, "beta2": 0.9}
    narrow: dict[str, Any] = {
        "label": "SONew band 1, bf16-state",
        "precision": "bf16-state",
        "fallback": {"layers": layers},
        "hyper": hyper,
    }
    wide = _record("a.json", made("sonew", (50.0,), hyper=hyper))
    for loss, judged in ((50.4, "+0.8 %: within 1 %"), (51.0, "+2.0 %: **not within 1 %**")):
        text = benchmarks.narrow_state(wide, _record("b.json", made("sonew", (loss,), **narrow)), command="train")
        assert _rows(text) == [
            ["SONew band 1, bf16-state", "1", *_rows(text)[0][2:4], judged, "10.0 % (`0.weight`) to 25.0 % (`2.weight`)"],
        ]
    other = made("sonew", (9.0,), **(narrow | {"hyper": hyper | {"beta2": 0.8}}))
    assert _rows(benchmarks.narrow_state(wide, _record("b.json", other), command="train")) == []


def test_runs_in_bfloat16_are_counted_and_those_that_diverged_left_out_of_the_mean() -> None:
    runs = [made("sonew", (50.0,), seed=0), made("sonew", (54.0,), seed=1), made("sonew", (None,), seed=2)]
    assert _rows(benchmarks.pure(_record("a.json", *runs), command="train")) == [["SONew band 1", "2 of 3", "52.00 (50.00 to 54.00)"]]


def test_settings_are_rows_and_tasks_with_bands_columns() -> None:
    def run(task: str, eps: float, loss: float | None) -> dict[str, Any]:
        return made("sonew", (loss,), task=task, hyper={"lr": 1e-3, "eps": eps})

    one = _record("a.json", run("text", 1e-8, 1.75), run("text", 1e-12, 1.5))
    two = _record("b.json", run("autoencoder", 1e-8, 70.0), run("autoencoder", 1e-12, None))
    text = benchmarks.settings(one, two, shown=("eps",), command="train")
    assert "| eps | text, band 1 | autoencoder, band 1 |" in text
    assert _rows(text) == [["1e-08", "1.750", "**70.00**"], ["1e-12", "**1.500**", "inf"]]
    words = _record("c.json", made("sonew", (1.5,), task="text", hyper={"lr": 1e-3, "chain": "row", "gamma": None}))
    shown = ("chain", "gamma", "precision")  # the last is a field of the entry itself
    assert _rows(benchmarks.settings(words, shown=shown, command="train")) == [["row", "not given", "fp32", "**1.500**"]]
