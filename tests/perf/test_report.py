from __future__ import annotations

from rich.console import Console, RenderableType

from sonew_perf import tables
from sonew_perf.steps import report as steps_report
from sonew_perf.training import report
from sonew_perf.training.summary import Cell, Comparison, Curve

MACHINE = "Some CPU (cpu), 2 CPU threads"


def _text(renderable: RenderableType, width: int = 80) -> list[str]:
    console = Console(width=width, force_terminal=False)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get().splitlines()


def _entry(case: str, ms: float, ratio: float, **more: object) -> dict[str, object]:
    against = {
        "AdamW fused": {"median": ratio, "low": ratio - 0.25, "high": ratio + 0.25},
        "copy": {"median": 10.0, "low": 9.0, "high": 11.0},
    }
    return {
        "case": case,
        "workload": {"name": "one tensor", "tensors": 1, "elements": 2**20, "dtype": "float32"},
        "settings": {"optimizer": "SONew", "backend": "auto"},
        "load_before": 0.25,
        "samples_ms": [ms] * 9,
        "median_ms": ms,
        "p20_ms": 0.9 * ms,
        "p80_ms": 1.1 * ms,
        "against": against,
        "state_bytes": 12 * 2**20,
        "peak_bytes": 24 * 2**20,
        "phases_ms": {"prologue": 0.25, "direction": 2.0},
        "plans": [{"backend": "cpu", "config": {"segment": 4096}, "provenance": "tuned entry (measured)"}],
        **more,
    }


def test_a_case_is_one_row_of_eighty_columns() -> None:
    entries = [_entry("SONew band 4, untuned", 1234.5678, 12.25), _entry("reference, band 4", 5, 30, peak_bytes=None)]
    lines = _text(steps_report.speed_table(entries, MACHINE))
    expected = ["SONew", "band", "4,", "untuned", "1234.57", "20%", "12.25", "[12.00,", "12.50]", "10.00", "12.0", "24.0"]
    assert expected in [line.split() for line in lines]
    (row,) = (line for line in lines if "reference" in line)
    assert row.split()[-1] == "-"
    assert any("9 interleaved rounds" in line for line in lines)
    assert "Some CPU (cpu), 2 CPU threads; load average before the run 0.25" in " ".join(" ".join(lines).split())


def test_plans_are_listed_once_with_where_they_come_from() -> None:
    entries = [_entry("a", 1, 1), _entry("a", 1, 1)]
    assert tables.plan_lines({"SONew": entries, "AdamW": []}) == ["SONew: cpu, segment=4096, tuned entry (measured)"]


def test_phases_are_listed_where_there_are_any() -> None:
    table = steps_report.phase_table([_entry("a", 1, 1), _entry("b", 1, 1, phases_ms={})])
    assert table is not None
    assert any(line.split() == ["a", "0.250", "2.000"] for line in _text(table))
    assert not any(line.split()[:1] == ["b"] for line in _text(table))
    assert steps_report.phase_table([_entry("b", 1, 1, phases_ms={})]) is None


CURVES = [
    Curve("SONew band 1", "sonew", (Cell(1e-3, (80.0, 82.0)), Cell(3e-3, (70.0, 72.0)), Cell(9e-3, (75.0, float("inf"))))),
    Curve("AdamW", "adamw", (Cell(1e-3, (120.0,)), Cell(3e-3, (110.0,)), Cell(9e-3, (100.0,)))),
]


def test_the_grid_shows_mean_and_range_and_the_methods_best() -> None:
    lines = [line.split() for line in _text(report.grid_table(CURVES, "title"))]
    assert ["0.003", "71.00", "(70.00", "to", "72.00)", "110.00"] in lines
    assert ["0.009", "inf", "(75.00", "to", "inf)", "100.00"] in lines


def test_the_methods_table_tells_an_optimum_at_the_edge_and_the_optimizers_share() -> None:
    entries = [{"steps": 100, "wall_s": 10.0, "optimizer_s": 0.5}]
    ours = [{**entries[0], "fallback": share} for share in (0.01, 0.0225, None)]
    lines = [line.split() for line in _text(report.method_table(CURVES, {"SONew band 1": ours, "AdamW": entries}, MACHINE), width=100)]
    assert ["SONew", "band", "1", "0.003", "inside", "71.00", "(70.00", "to", "72.00)", "100.0", "5.00", "2.25%"] in lines
    assert ["AdamW", "0.009", "at", "edge", "100.00", "100.0", "5.00", "-"] in lines


def test_a_method_that_diverged_everywhere_has_no_best_rate() -> None:
    lost = Curve("AdamW", "adamw", (Cell(1e-3, (float("inf"),)), Cell(3e-3, (float("inf"),))))
    entries = [{"steps": 100, "wall_s": 10.0, "optimizer_s": 0.5}]
    lines = [line.split() for line in _text(report.method_table([lost], {"AdamW": entries}, MACHINE), width=100)]
    assert ["AdamW", "-", "none", "diverged", "100.0", "5.00", "-"] in lines


def test_a_comparison_says_how_far_and_whether_it_was_judged() -> None:
    told = Comparison("SONew band 1", "AdamW", -0.25, (-0.3, -0.2))
    assert report.comparison_line(told) == "SONew band 1 against AdamW: -25.0% loss (seed by seed -30.0% to -20.0%)"
    unsure = Comparison("SONew band 1", "AdamW", 0.5, (0.5,), "some reason")
    found = "+50.0% loss (seed by seed +50.0% to +50.0%)"
    assert report.comparison_line(unsure) == f"SONew band 1 against AdamW: {found}; not judged: some reason, move the grid with --lr"
    lost = Comparison("SONew band 1", "AdamW", None, (), "AdamW diverged")
    assert report.comparison_line(lost) == "SONew band 1 against AdamW: not judged: AdamW diverged, move the grid with --lr"
