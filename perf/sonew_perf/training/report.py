"""A grid of training runs as tables and sentences for people."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from rich.console import Group

from sonew_perf.records.files import Entry
from sonew_perf.tables import plain_table, titled
from sonew_perf.training.summary import Cell, Comparison, Curve


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

    Fallback is the largest share of columns that fell back in a run's last step (`sonew_perf.training.fallback`).

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
