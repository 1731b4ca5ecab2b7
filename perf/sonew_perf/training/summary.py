"""What a grid of training runs says: each method's best learning rate, and how far apart the methods end."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from sonew_perf.records.files import Entry
from sonew_perf.training.runs import BASELINE, Run


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
    def diverged(self) -> bool:
        """Whether every learning rate has a seed that diverged, so that there is no optimum."""
        return math.isinf(self.best.mean)

    @property
    def inside(self) -> bool:
        """Whether the optimum has a neighbour on both sides and is finite: at an edge a wider grid might do better."""
        return not self.diverged and self.best not in (self.cells[0], self.cells[-1])


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
        relative: loss over the baseline's loss, minus 1; negative is better. None where one of them has no optimum.
        per_seed: the same, seed by seed; empty where `relative` is None.
        obstacle: why nothing is judged: no optimum, or one at the edge of the grid. None where both lie inside.
    """

    label: str
    baseline: str
    relative: float | None
    per_seed: tuple[float, ...]
    obstacle: str | None = None

    @property
    def judged(self) -> bool:
        """Whether the comparison decides anything."""
        return self.obstacle is None


def _compare(ours: Curve, theirs: Curve) -> Comparison:
    if lost := [curve.label for curve in (ours, theirs) if curve.diverged]:
        return Comparison(ours.label, theirs.label, None, (), f"{' and '.join(lost)} diverged at every learning rate")
    edge = [curve.label for curve in (ours, theirs) if not curve.inside]
    return Comparison(
        label=ours.label,
        baseline=theirs.label,
        relative=ours.best.mean / theirs.best.mean - 1,
        per_seed=tuple(one / other - 1 for one, other in zip(ours.best.losses, theirs.best.losses, strict=True)),
        obstacle=f"the optimum of {' and '.join(edge)} lies at the edge of the grid" if edge else None,
    )


def comparisons(all_curves: Sequence[Curve]) -> list[Comparison]:
    """Every method against the baseline; none where the baseline or everything else was not run."""
    baseline = next((curve for curve in all_curves if curve.method == BASELINE), None)
    return [] if baseline is None else [_compare(curve, baseline) for curve in all_curves if curve is not baseline]
