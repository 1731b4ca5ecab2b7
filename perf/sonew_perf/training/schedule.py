"""The learning rate over a run: a share of its peak for each step. No framework is loaded here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

WARM_UP_EPOCHS: Final = 5
WARM_UP_SHARE: Final = 0.05  # of the steps, where the rule is by the step


def constant(_step: int, _total: int, _per_epoch: int) -> float:
    """The peak throughout."""
    return 1.0


def by_epoch(step: int, total: int, per_epoch: int) -> float:
    """The paper's rule, constant within an epoch: linspace(0, peak, 5), then linspace(peak, 0, epochs - 3) without its ends.

    The first epoch's rate is exactly 0, as in the authors' code. A last epoch that is cut short counts as one.
    """
    epoch, epochs = step // per_epoch, -(-total // per_epoch)
    if epoch >= epochs:
        return 0.0
    if epoch < WARM_UP_EPOCHS:
        return epoch / (WARM_UP_EPOCHS - 1)
    return 1.0 - (epoch - WARM_UP_EPOCHS + 1) / (epochs - WARM_UP_EPOCHS + 1)


def by_step(step: int, total: int, _per_epoch: int) -> float:
    """Linear: up to the peak over the first twentieth of the steps, then down, to nothing after the last step."""
    warm = max(1, round(WARM_UP_SHARE * total))
    return (step + 1) / warm if step < warm else max(0.0, (total - step) / max(1, total - warm))


RULES: Final[Mapping[str, Callable[[int, int, int], float]]] = {"epochs": by_epoch, "steps": by_step, "constant": constant}
"""By name: the share of the peak from (step from 0, steps of the whole schedule, steps of an epoch); beyond the schedule 0, or the peak."""
