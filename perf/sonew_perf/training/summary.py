"""What a grid of learning rates says of a method: its best rate, and whether a wider grid might know a better one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from sonew_perf.records.files import Entry


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
    """A method over its learning rates, ascending; where it has only one there is no grid."""

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

    @property
    def is_grid(self) -> bool:
        """Whether there is a choice of learning rates."""
        return len(self.cells) > 1

    @property
    def obstacle(self) -> str | None:
        """Why the best of a grid is not judged; None where it is, or where there is no grid."""
        if not self.is_grid or self.inside:
            return None
        if self.diverged:
            return f"{self.label} diverged at every learning rate"
        return f"the optimum of {self.label} lies at the edge of the grid"


def curves(entries: Iterable[Entry]) -> list[Curve]:
    """The results arranged by label and learning rate.

    Args:
        entries: with `label`, `method`, `lr`, `seed` and `loss` (null: diverged); one per label, learning rate and seed.

    Returns:
        Labels in the order of the entries.
    """
    table: dict[tuple[str, str], dict[float, dict[int, float]]] = {}
    for entry in entries:
        loss = math.inf if entry["loss"] is None else float(entry["loss"])
        table.setdefault((entry["label"], entry["method"]), {}).setdefault(entry["lr"], {})[entry["seed"]] = loss
    return [
        Curve(label, method, tuple(Cell(lr, tuple(loss for _, loss in sorted(by_seed.items()))) for lr, by_seed in sorted(by_rate.items())))
        for (label, method), by_rate in table.items()
    ]
