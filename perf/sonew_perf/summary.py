"""What a grid of training runs says: each method's best learning rate, and how far apart the methods end."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from sonew_perf.store import Entry
from sonew_perf.training import BASELINE, Run


@dataclass(frozen=True, slots=True)
class Cell:
    """A method's runs at one learning rate, one per seed in the order of the seeds; inf where training diverged."""

    lr: float
    losses: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.losses)


@dataclass(frozen=True, slots=True)
class Curve:
    """A method over the grid, learning rates ascending."""

    label: str
    method: str
    cells: tuple[Cell, ...]

    @property
    def best(self) -> Cell:
        """The cell with the least mean loss."""
        return min(self.cells, key=lambda cell: cell.mean)

    @property
    def inside(self) -> bool:
        """Whether the optimum has a neighbour on both sides and is finite: at an edge a wider grid might do better."""
        return self.best not in (self.cells[0], self.cells[-1]) and math.isfinite(self.best.mean)


def curves(runs: Sequence[Run], results: Sequence[Entry]) -> list[Curve]:
    """The results arranged by method and learning rate, methods in the order of the runs."""
    table: dict[tuple[str, str], dict[float, list[float]]] = {}
    for run, result in zip(runs, results, strict=True):
        loss = math.inf if result["loss"] is None else float(result["loss"])
        table.setdefault((run.label, run.method), {}).setdefault(run.lr, []).append(loss)
    return [
        Curve(label, method, tuple(Cell(lr, tuple(losses)) for lr, losses in sorted(cells.items())))
        for (label, method), cells in table.items()
    ]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A method's best cell against the baseline's best cell.

    Attributes:
        relative: loss over the baseline's loss, minus 1; negative is better.
        per_seed: the same, seed by seed.
        judged: both optima lie inside the grid.
    """

    label: str
    baseline: str
    relative: float
    per_seed: tuple[float, ...]
    judged: bool


def comparisons(all_curves: Sequence[Curve]) -> list[Comparison]:
    """Every method against the baseline, where both ran and did not diverge."""
    baseline = next((curve for curve in all_curves if curve.method == BASELINE and math.isfinite(curve.best.mean)), None)
    if baseline is None:
        return []
    return [
        Comparison(
            label=curve.label,
            baseline=baseline.label,
            relative=curve.best.mean / baseline.best.mean - 1,
            per_seed=tuple(ours / theirs - 1 for ours, theirs in zip(curve.best.losses, baseline.best.losses, strict=True)),
            judged=curve.inside and baseline.inside,
        )
        for curve in all_curves
        if curve is not baseline and math.isfinite(curve.best.mean)
    ]
