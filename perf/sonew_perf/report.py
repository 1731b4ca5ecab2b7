"""Entries as tables for people."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sonew_perf.store import Entry
from sonew_perf.summary import Cell, Comparison, Curve

MEBI = 2**20


def multiple(ratio: Mapping[str, float]) -> str:
    """A ratio with its interval."""
    return f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"


def plain_table(headers: Sequence[str]) -> Table:
    """A table narrow enough for a terminal of 80 columns: the first column is text, the others are numbers."""
    table = Table(box=SIMPLE_HEAD, padding=0)
    for index, header in enumerate(headers):
        table.add_column(header, justify="right" if index else "left")
    return table


def titled(title: str, table: Table, notes: str = "") -> Group:
    """The table under its title and above its notes, which a narrow table must not squeeze."""
    return Group(Text(title, style="bold"), table, *([Text(notes, style="dim")] if notes else []), Text())


def _configuration(config: Mapping[str, int]) -> str:
    return " ".join(f"{name}={value}" for name, value in config.items()) + ", " if config else ""


def plan_lines(named: Mapping[str, Sequence[Entry]]) -> list[str]:
    """For each name the distinct plans of its entries: backend, configuration and where it comes from."""
    return [
        line
        for name, entries in named.items()
        for line in dict.fromkeys(
            f"{name}: {plan['backend']}, {_configuration(plan['config'])}{plan['provenance']}"
            for entry in entries
            for plan in entry["plans"]
        )
    ]


def speed_table(entries: Sequence[Entry], headline: str) -> Group:
    """One row per case of `sonew-perf run`."""
    workload, rounds = entries[0]["workload"], len(entries[0]["samples_ms"])
    notes = (
        f"{headline}; load average before the run {entries[0]['load_before']}\n{rounds} interleaved rounds: median ms; spread, 20th to "
        "80th percentile over the median; multiples, median of the per-round ratios (AdamW: with its 95 % interval). B/elem: state. "
        "MiB: peak of parameters, gradients, state and scratch."
    )
    tensors = f" ({workload['tensors']} tensors)" if workload["tensors"] > 1 else ""
    title = f"One optimizer step: {workload['name']}{tensors}, {workload['elements']} {workload['dtype']} elements"
    table = plain_table(("case", "ms", "spread", "x fused AdamW", "x copy", "B/elem", "MiB"))
    for entry in entries:
        against, ours = entry["against"], entry["settings"].get("backend") == "auto"
        table.add_row(
            entry["case"],
            f"{entry['median_ms']:.2f}",
            f"{(entry['p80_ms'] - entry['p20_ms']) / entry['median_ms']:.0%}",
            multiple(against["AdamW fused"]),
            f"{against['copy']['median']:.2f}",
            f"{entry['state_bytes'] / workload['elements']:.1f}",
            "-" if entry["peak_bytes"] is None else f"{entry['peak_bytes'] / MEBI:.1f}",
            style="bold" if ours else None,
        )
    return titled(title, table, notes)


def phase_table(entries: Sequence[Entry]) -> Group | None:
    """Milliseconds per phase, for the cases that have phases of their own."""
    phased = [entry for entry in entries if entry["phases_ms"]]
    if not phased:
        return None
    table = plain_table(("case", *phased[0]["phases_ms"]))
    for entry in phased:
        table.add_row(entry["case"], *(f"{value:.3f}" for value in entry["phases_ms"].values()))
    return titled("Phases, each timed on its own (median ms)", table)


def _loss(cell: Cell) -> str:
    spread = f" ({min(cell.losses):.2f} to {max(cell.losses):.2f})" if len(cell.losses) > 1 else ""
    return f"{cell.mean:.2f}{spread}"


def grid_table(curves: Sequence[Curve], title: str) -> Group:
    """Loss per learning rate and method: mean and range over the seeds, each method's best in bold."""
    table = plain_table(("lr", *(curve.label for curve in curves)))
    for row, cell in enumerate(curves[0].cells):
        cells = [curve.cells[row] for curve in curves]
        best = [c is curve.best and not curve.diverged for c, curve in zip(cells, curves, strict=True)]
        marked = [f"[bold]{_loss(c)}[/bold]" if bold else _loss(c) for c, bold in zip(cells, best, strict=True)]
        table.add_row(f"{cell.lr:.4g}", *marked)
    return titled(title, table, "Mean over the seeds (range); bold: the method's best.")


def method_table(curves: Sequence[Curve], results: Mapping[str, Sequence[Entry]], headline: str) -> Group:
    """Per method: best learning rate and whether it lies inside the grid, loss, time per step, the optimizer's part of it, fallback.

    Fallback is the largest share of columns that fell back in a run's last step (`sonew_perf.fallback`).

    Args:
        curves: the methods.
        results: entries per method label.
        headline: the machine.
    """
    table = plain_table(("method", "best lr", "optimum", "loss", "ms/step", "optimizer ms", "fallback"))
    for curve in curves:
        entries = results[curve.label]
        per_step, inside_step = (statistics.median(1000 * e[name] / e["steps"] for e in entries) for name in ("wall_s", "optimizer_s"))
        shares = [e["fallback"] for e in entries if e.get("fallback") is not None]
        table.add_row(
            curve.label,
            "-" if curve.diverged else f"{curve.best.lr:.4g}",
            "[red]none[/red]" if curve.diverged else "inside" if curve.inside else "[red]at edge[/red]",
            "diverged" if curve.diverged else _loss(curve.best),
            f"{per_step:.1f}",
            f"{inside_step:.2f}",
            f"{max(shares):.2%}" if shares else "-",
        )
    return titled("Best of each method", table, headline)


def comparison_line(comparison: Comparison) -> str:
    """The comparison in a sentence, with its range over the seeds; negative is better."""
    found = []
    if comparison.relative is not None:
        low, high = min(comparison.per_seed), max(comparison.per_seed)
        found = [f"{comparison.relative:+.1%} loss (seed by seed {low:+.1%} to {high:+.1%})"]
    if not comparison.judged:
        found.append(f"not judged: {comparison.obstacle}, move the grid with --lr")
    return f"{comparison.label} against {comparison.baseline}: {'; '.join(found)}"
