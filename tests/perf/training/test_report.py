from __future__ import annotations

from typing import Any

from rich.console import Console, RenderableType

from sonew_perf.training import report
from sonew_perf.training.race import Race, races
from tests.perf.training.entries import made

ADAM = [made("adam", (80.0, 60.0, 50.0), seed=0), made("adam", (84.0, 64.0, 54.0), seed=1)]
OURS = [
    made("sonew", (72.0, 32.0, 30.0), seed=seed, step_s=0.13, optimizer_step_s=0.04, state_bytes=6 * 2**20, load_before=load)
    for seed, load in ((0, 0.75), (1, 0.5))
]
SOAP = [made("soap", (60.0, 40.0, 20.0 + seed), seed=seed, step_s=0.39, optimizer_step_s=0.3, state_bytes=9 * 2**20) for seed in (0, 1)]


def _race(*entries: dict[str, Any]) -> Race:
    (race,) = races(entries)
    return race


def _rows(renderables: list[RenderableType], width: int = 80) -> list[list[str]]:
    console = Console(width=width, force_terminal=False)
    with console.capture() as captured:
        for renderable in renderables:
            console.print(renderable)
    return [line.split() for line in captured.get().splitlines()]


def test_the_title_says_what_was_trained_and_whether_to_the_end() -> None:
    race = _race(*ADAM)
    assert report.title(race, "Task", "loss") == "Task, 30 steps, batch 100, learning rate by epochs: loss"
    cut = _race(made("adam", (9.0,), schedule_steps=500))
    flags = made("adam", (9.0,), machine=ADAM[0]["machine"] | {"flags": "avx2 fma"})
    assert (
        report.headline(_race(flags)) == "Some CPU (cpu), 2 CPU threads, avx2 fma; torch 2.13.0; seed 0; load average before the runs 0.50"
    )
    assert report.title(cut, "Task", "loss") == "Task, 10 steps of a schedule of 500, batch 100, learning rate by epochs: loss"


def test_a_method_is_one_row_of_eighty_columns() -> None:
    rows = _rows([report.method_table(_race(*ADAM, *OURS), "name")])
    assert ["Adam", "0.001", "52.00", "(50.00", "to", "54.00)", "100.0", "10.00", "3.0"] in rows
    assert ["SONew", "band", "1", "0.001", "30.00", "(30.00", "to", "30.00)", "130.0", "40.00", "6.0"] in rows
    said = " ".join(word for row in rows for word in row)
    assert "Some CPU (cpu), 2 CPU threads; torch 2.13.0; seeds 0, 1; load average before the runs 0.50 to 0.75" in said


def test_fallback_is_a_column_where_somebody_counted() -> None:
    counted = made("sonew", (9.0,), fallback={"layers": {"a": [0.5, 0.0225]}})
    rows = _rows([report.method_table(_race(counted, made("adam", (9.0,))), "name")])
    assert ["SONew", "band", "1", "0.001", "9.0000", "100.0", "10.00", "3.0", "2.25%"] in rows
    assert ["Adam", "0.001", "9.0000", "100.0", "10.00", "3.0", "-"] in rows


def test_shares_of_what_the_baseline_needs_are_a_row_each() -> None:
    never = made("sonew", (72.0, 60.0, 55.0), label="SONew band 0")
    once = [made("sonew", (72.0, 52.0, last), label="SONew band 2", seed=seed) for seed, last in enumerate((50.0, 50.0))]
    once[1] |= {"losses": [72.0, 60.0, 55.0]}
    (table,) = report.share_tables(_race(*ADAM, *SOAP, never, *once))
    rows = _rows([table])
    assert ["To", "Adam's", "best", "final", "loss,", "52.00"] in rows
    assert ["Adam", "30", "100", "%", "100", "%", "100", "%"] in rows
    assert ["SOAP", "14", "47", "%", "182", "%", "1400", "%"] in rows
    assert ["SONew", "band", "0", "never", "-", "-", "-"] in rows
    assert ["SONew", "band", "2", "1", "of", "2", "seeds", "-", "-", "-"] in rows


def test_a_share_has_its_range_over_the_seeds() -> None:
    ours = [made("sonew", (72.0, last), seed=seed) for seed, last in enumerate((32.0, 42.0))]
    rows = _rows(report.share_tables(_race(made("adam", (80.0, 52.0)), *ours)))
    assert ["SONew", "band", "1", "16", "79", "%", "(75", "to", "83)", "79", "%", "(75", "to", "83)", "79", "%", "(75", "to", "83)"] in rows


def test_without_a_baseline_or_without_others_there_are_no_shares() -> None:
    for entries in (ADAM, OURS):
        race = _race(*entries)
        assert report.share_tables(race) == []
        assert report.share_lines(race) == []


def test_who_ends_lowest_and_what_that_costs_is_said() -> None:
    race = _race(*ADAM, *OURS, *SOAP)
    assert report.lowest_line(race) == (
        "SOAP ends lowest: 20.50 (20.00 to 21.00), 60.6% below Adam; it costs 3.90 times the wall time of a step, "
        "30.00 times the optimizer's and 3.00 times the state"
    )
    (line,) = report.share_lines(race)
    assert line == (
        "to Adam's best final loss, in shares of what Adam needs: SOAP takes the fewest steps, 47 %; "
        "SONew band 1 takes the least wall time, 65 %; Adam takes the least optimizer time, 100 %"
    )


def test_the_baseline_may_end_lowest_and_nobody_reach_it() -> None:
    race = _race(*ADAM, made("sonew", (72.0, 60.0, 55.0)))
    assert report.lines(race) == [
        "Adam ends lowest: 52.00 (50.00 to 54.00)",
        "no other method reaches Adam's best final loss with every seed",
    ]


def test_equal_ends_are_level() -> None:
    race = _race(made("sonew", (72.0, 50.0)), made("adam", (80.0, 50.0)))
    assert report.lowest_line(race).startswith("SONew band 1 ends lowest: 50.00, level with Adam; it costs 1.00 times")


def test_a_loss_of_nothing_is_level_with_another() -> None:
    """A text of one character is known without training."""
    race = _race(made("sonew", (0.0, 0.0)), made("adam", (0.0, 0.0)))
    assert report.lowest_line(race).startswith("SONew band 1 ends lowest: 0.0000, level with Adam")


def test_the_grid_shows_every_rate_and_an_optimum_at_its_edge_is_told() -> None:
    ours = [made("sonew", (70.0 + abs(lr - 2),), lr=lr, seed=seed) for lr in (1.0, 2.0, 3.0) for seed in (0, 1)]
    theirs = [made("adam", (90.0 + lr,), lr=lr, seed=seed) for lr in (2.0, 3.0) for seed in (0, 1)]
    race = _race(*ours, *theirs)
    rows = _rows(report.tables(race, "name"))
    assert ["1", "71.00", "(71.00", "to", "71.00)", "-"] in rows
    assert ["2", "70.00", "(70.00", "to", "70.00)", "92.00", "(92.00", "to", "92.00)"] in rows
    assert ["Adam", "2", "at", "edge", "92.00", "(92.00", "to", "92.00)", "100.0", "10.00", "3.0"] in rows
    assert report.obstacle_lines(race) == ["not judged: the optimum of Adam lies at the edge of the grid, move the grid with --lr"]
    assert report.lines(race)[-1:] == report.obstacle_lines(race)


def test_methods_that_diverged_are_said_to() -> None:
    race = _race(made("sonew", (72.0, None)), made("adam", (80.0, None)))
    rows = _rows(report.tables(race, "name"))
    assert ["SONew", "band", "1", "0.001", "diverged", "100.0", "10.00", "3.0"] in rows
    assert report.lines(race) == ["every method diverged"]


def test_a_label_is_no_markup() -> None:
    rows = _rows(report.tables(_race(made("adam", (9.0,), label="[/red]")), "name"))
    assert ["[/red]", "0.001", "9.0000", "100.0", "10.00", "3.0"] in rows
