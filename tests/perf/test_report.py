from __future__ import annotations

from rich.console import Console, RenderableType

from sonew_perf import tables
from sonew_perf.steps import report as steps_report

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
