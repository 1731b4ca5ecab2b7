from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from sonew_perf.gpu import report
from sonew_perf.gpu.plan import make_plan
from sonew_perf.gpu.targets import TARGETS, Row, Target, judge, judge_all


def _entry(case: str, times: list[float], share: dict[str, float] | None = None) -> dict[str, Any]:
    return {"case": case, "samples_ms": times, "copy_share": share}


def _target(*, more: bool) -> Target:
    bounds = (2.5, 2.8) if more else (1.45, 1.40)
    return Target(what="a speed", unit="unit", case="ours", against="theirs", reach=bounds[0], stretch=bounds[1], more=more)


@pytest.mark.parametrize(
    ("more", "ratio", "verdict"),
    [
        (False, 1.46, "not reached"),
        (False, 1.45, "reached"),
        (False, 1.40, "stretch reached"),
        (True, 2.49, "not reached"),
        (True, 2.5, "reached"),
        (True, 2.9, "stretch reached"),
    ],
)
def test_a_multiple_is_the_median_of_the_paired_ratios(more: bool, ratio: float, verdict: str) -> None:
    times = [1.0, 2.0, 4.0, 8.0, 3.0, 5.0, 7.0]  # a drifting machine: only the ratios of the same round are steady
    entries = [_entry("ours", [ratio * time for time in times]), _entry("theirs", times)]
    row = judge(_target(more=more), {"unit": {"entries": entries}})
    assert row.median == pytest.approx(ratio, abs=1e-4)
    assert row.low == pytest.approx(ratio, abs=1e-4)
    assert row.verdict == verdict


def test_a_share_of_the_copy_is_taken_from_the_case() -> None:
    target = TARGETS[0]
    assert target.share
    entries = [_entry(target.case, [1.0], {"median": 0.96, "low": 0.95, "high": 0.97}), _entry("copy", [1.0])]
    row = judge(target, {target.unit: {"entries": entries}})
    assert (row.median, row.low, row.high, row.verdict) == (0.96, 0.95, 0.97, "reached")


@pytest.mark.parametrize("units", [{}, {"unit": {}}, {"unit": {"entries": [_entry("ours", [1.0])]}}, {"unit": {"entries": []}}])
def test_what_is_missing_was_not_measured(units: dict[str, Any]) -> None:
    row = judge(_target(more=False), units)
    assert (row.median, row.verdict) == (None, "not measured")


@pytest.mark.parametrize(("ours", "verdict"), [(1.15, "reached"), (1.16, "not reached")])
def test_a_case_of_another_unit_is_compared_by_medians(ours: float, verdict: str) -> None:
    """Their rounds are others, here even in number."""
    target = Target(what="a speed", unit="jax", case="ours", against="theirs", against_unit="torch", reach=1.15, stretch=None)
    units = {"jax": {"entries": [_entry("ours", [ours] * 9)]}, "torch": {"entries": [_entry("theirs", [1.0] * 7)]}}
    row = judge(target, units)
    assert (row.median, row.low, row.high, row.verdict) == (ours, ours, ours, verdict)
    assert judge(target, {"jax": units["jax"]}).verdict == "not measured"
    assert "a speed <= 1.15 - " in _printed(report.target_table([row], "NVIDIA H100", ""))


def _printed(group: object) -> str:
    stream = io.StringIO()
    Console(file=stream, width=200).print(group)
    return " ".join(stream.getvalue().split())


def test_the_table_prints_each_target_beside_what_was_measured() -> None:
    rows = [Row(TARGETS[0], 0.961, 0.95, 0.97), *judge_all({})[1:6], Row(TARGETS[6], 1.5, 1.48, 1.52), *judge_all({})[7:]]
    text = _printed(report.target_table(rows, "NVIDIA H200", "These speeds may not be quoted: x failed."))
    assert "direction phase, 64 Mi fp32, band 1: share of copy 95% 98% 96% [95%, 97%] reached" in text
    assert "gpt2-small, band 1, float32 state, graph: times fused AdamW <= 1.45 <= 1.40 1.50 [1.48, 1.52] not reached" in text
    assert text.count("not measured not measured") == 20
    assert "The targets are set for an H100." in text
    assert "may not be quoted: x failed" in text
    assert "set for an H100" not in _printed(report.target_table(rows, "NVIDIA H100 80GB HBM3", ""))


def test_the_plan_is_printed_with_its_cases_and_seconds() -> None:
    units = make_plan()
    text = _printed(report.plan_table(units, 560))
    assert "tune band 16 tune 12+ 1" in text
    assert f"About {sum(unit.seconds for unit in units):.0f} s on an H100" in text
    lines = report.plan_lines(units)
    assert len(lines) == len(units)
    assert lines[0] == "tests on the device: pytest tests/kernels/gpu -m 'gpu'"
