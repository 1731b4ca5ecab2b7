from __future__ import annotations

from typing import Any, Final

import pytest

from sonew_perf.errors import RecordError
from sonew_perf.numbers import race
from sonew_perf.numbers.record import Record
from tests.perf.dashboard.made import a_run, a_training

MACHINE: Final = {"device": "Some CPU", "type": "cpu", "threads": 1, "torch": "3", "python": "3.12"}
RUN: Final = a_run(0)


def _entry(method: str, band: int | None, lr: float, seed: int, *losses: float | None, **more: Any) -> dict[str, Any]:
    return a_training(RUN, method, band, lr, seed, losses, machine=MACHINE, **more)


def _record(name: str, *entries: dict[str, Any]) -> Record:
    return Record(name, entries, f"[record]({name})")


ADAM: Final = _record("adam.json", _entry("adam", None, 4.14e-3, 0, 100.0, 52.0), _entry("adam", None, 4.14e-3, 1, 90.0, 48.0))
OURS: Final = _record("ours.json", *(_entry("sonew", 1, 6.2e-3, seed, 100.0, 0.0, loss=40.0 + seed, load_before=2.5) for seed in (0, 1)))


def _rows(text: str) -> list[list[str]]:
    """Cells of the table's rows, without its head."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")][2:]


def test_a_race_is_a_table_of_what_each_method_ends_at_costs_and_needs_to_adams_best() -> None:
    text = race.race(ADAM, OURS, command="sonew-perf train")
    ours, adams = _rows(text)
    settings = "beta1 0.9, beta2 0.99, eps 1e-8"
    assert ours[:3] == ["SONew band 1", f"lr 6.2e-3, {settings}", "**40.50** (40.00 to 41.00, 2 seeds)"]
    assert ours[3:] == ["120", "40.0", "32", "75 %", "90 %", "150 %", "[record](ours.json)"]
    assert adams[:3] == ["Adam", f"lr 4.14e-3, {settings}", "50.00 (48.00 to 52.00, 2 seeds)"]
    assert adams[3:] == ["100", "20.0", "22", "100 %", "100 %", "100 %", "[record](adam.json)"]
    told = " ".join(text.partition("|")[0].split())
    assert told.startswith("`sonew-perf train`. MNIST, 120 steps, batch 1000. Some CPU, 1 thread, torch 3, Python 3.12, 20")
    assert "load average before the runs 0.50 to 2.50 (median 1.50)" in told
    assert told.endswith("of Adam at 50.00.")
    assert "| steps to Adam's best |" in text


def test_far_more_is_a_multiple_and_who_never_gets_there_or_diverged_is_named_so() -> None:
    slow = _entry("sonew", 4, 1e-2, 0, 100.0, 0.0, step_s=0.48, optimizer_step_s=0.4)
    late, lost = _entry("sonew", 1, 1e-2, 0, 100.0, 50.5), _entry("sonew", 0, 1e-2, 0, 100.0, None)
    rows = _rows(race.race(ADAM, _record("more.json", late, slow, lost)))
    assert [(row[0], row[6], row[8]) for row in rows[:1]] == [("SONew band 4", "75 %", "15.0 x")]
    assert [(row[0], row[2], row[6:9]) for row in rows if row[0] in {"SONew band 0", "SONew band 1"}] == [
        ("SONew band 1", "50.50 (1 seed)", ["never"] * 3),
        ("SONew band 0", "diverged (1 seed)", ["never"] * 3),
    ]


def test_without_adam_nothing_is_held_against_it() -> None:
    text = race.race(OURS)
    assert _rows(text)[0][6:9] == ["-", "-", "-"]
    assert "shares" not in text


def test_a_best_rate_at_the_edge_of_its_grid_is_said_to_be_one() -> None:
    runs = [_entry("sonew", 1, lr, 0, 100.0, end) for lr, end in ((1e-3, 40.0), (2e-3, 45.0), (4e-3, 60.0))]
    text = race.race(_record("grid.json", *runs))
    assert text.endswith("\n\nOf the searched learning rates the optimum of SONew band 1 lies at the edge of the grid.\n")
    assert _rows(text)[0][1].startswith("lr 1e-3, ")


def test_one_race_is_asked_for_and_one_is_shown() -> None:
    short = _record("short.json", _entry("adam", None, 1e-2, 0, 70.0))
    with pytest.raises(RecordError, match=r"adam\.json, short\.json has 2 races with \{\}, expected one of .*Say more of its conditions"):
        race.race(ADAM, short)
    with pytest.raises(RecordError, match=r"has 0 races with \{'steps': 7\}"):
        race.race(ADAM, steps=7)
    assert _rows(race.race(ADAM, short, steps=60))[0][2] == "**70.00** (1 seed)"


def test_numbers_for_a_sentence() -> None:
    named: dict[str, Any] = {"label": "SONew band 1", "steps": 120}
    assert race.loss(ADAM, OURS, **named) == "40.50"
    assert [race.share(ADAM, OURS, of=name, **named) for name in ("steps", "wall", "optimizer")] == ["75 %", "90 %", "150 %"]
    with pytest.raises(RecordError, match=r"no method 'Lion'; it has \['Adam', 'SONew band 1'\]"):
        race.loss(ADAM, OURS, label="Lion")
