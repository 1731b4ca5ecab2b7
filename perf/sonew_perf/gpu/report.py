"""A run for people: its plan, a table per timed case, and the targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.text import Text

from sonew_perf.gpu.plan import Unit
from sonew_perf.gpu.targets import DEVICE, Row
from sonew_perf.records.files import Entry
from sonew_perf.tables import MEBI, multiple, plain_table, titled


def plan_table(units: Sequence[Unit], budget_s: float) -> Group:
    """Every unit with its cases and seconds."""
    table = plain_table(("unit", "stage", "about s", "cases"))
    for unit in units:
        table.add_row(unit.name, unit.stage, f"{unit.seconds:.0f}{'+' if unit.elastic else ''}", str(len(unit.cases)))
    fixed = sum(unit.seconds for unit in units)
    notes = (
        f"About {fixed:.0f} s on an {DEVICE} that has compiled nothing yet (estimated, not measured), at most {budget_s:.0f} s in one "
        "call: the same command goes on from there. Tuning (+) takes what the others leave."
    )
    return titled("What `sonew-perf gpu` does, in this order", table, notes)


def plan_lines(units: Sequence[Unit]) -> list[str]:
    """The cases of every unit."""
    return [f"{unit.name}: {'; '.join(unit.cases)}" for unit in units]


def _share(entry: Entry) -> str:
    return "-" if entry["copy_share"] is None else f"{entry['copy_share']['median']:.0%}"


def speed_table(name: str, result: dict[str, Any]) -> Group:
    """One row per case that ran, a line per case that did not."""
    workload = result["workload"]
    table = plain_table(("case", "ms", "spread", f"x {result.get('baseline', 'fused AdamW')}", "of copy", "B/elem", "MiB"))
    for entry in result["entries"]:
        fused = next((ratio for peer, ratio in entry["against"].items() if peer != "copy"), None)
        table.add_row(
            entry["case"],
            f"{entry['median_ms']:.4g}",
            f"{(entry['p80_ms'] - entry['p20_ms']) / entry['median_ms']:.0%}",
            "-" if fused is None else multiple(fused),
            _share(entry),
            f"{entry['state_bytes'] / workload['elements']:.1f}" if entry["state_bytes"] else "-",
            "-" if entry["peak_bytes"] is None else f"{entry['peak_bytes'] / MEBI:.1f}",
        )
    notes = "\n".join(f"{case}: not measured ({reason})" for case, reason in result["failures"].items())
    tensors = f" ({workload['tensors']} tensors)" if workload["tensors"] > 1 else ""
    return titled(f"{name}: {workload['name']}{tensors}, {workload['elements']} {workload['dtype']} elements", table, notes)


def _number(row: Row, value: float) -> str:
    return f"{value:.0%}" if row.target.share else f"{value:.2f}"


def _measured(row: Row) -> str:
    if row.median is None or row.low is None or row.high is None:
        return "not measured"
    return f"{_number(row, row.median)} [{_number(row, row.low)}, {_number(row, row.high)}]"


def target_table(rows: Sequence[Row], device: str, warning: str) -> Group:
    """Each target with the measured value beside it."""
    table = plain_table(("target", "reach", "stretch", "measured", "verdict"))
    for row in rows:
        sign = "" if row.target.more else "<= "
        bounds = ("-" if bound is None else f"{sign}{_number(row, bound)}" for bound in (row.target.reach, row.target.stretch))
        table.add_row(row.target.what, *bounds, _measured(row), row.verdict)
    elsewhere = "" if DEVICE in device else f" The targets are set for an {DEVICE}."
    group = titled(
        f"Targets, measured on {device}",
        table,
        f"Median of the per-round ratios with its 95 % interval; JAX to torch: ratio of the medians.{elsewhere}",
    )
    return Group(group, Text(warning, style="bold red")) if warning else group
