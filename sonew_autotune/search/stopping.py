"""When a search ends, and why: pure functions of the finished trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sonew_autotune.search.results import Record

StopKind = Literal["every point", "trials", "roof", "stalled", "budget"]

ROOF: Final = 0.95  # of a copy's bytes per second: what is left to gain is less than the machine's noise
NO_ROOF: Final = 1.1  # of the same: nothing moves bytes that much faster than a copy, the machine was busy
ROOF_TRIALS: Final = 3  # timed ones before the rule holds: one may have been lucky
ROOF_BYTES: Final = 64 * 2**20  # problems that move less are bound by launches and caches, and a copy's pace is no roof to them
PROGRESS: Final = 0.995  # a new best must be this much better than the one before to count as progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When a search may end before its trials are used up.

    Attributes:
        patience: trials in a row without progress after which a guided search ends, None: never.
        bytes_moved: of a step, which decides whether a copy is a roof; 0 where it is none: a CPU's copy also reads what it
            overwrites, and steps were measured at up to 1.6 times its pace (tests/autotune/recordings).
    """

    patience: int | None = None
    bytes_moved: int = 0


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a search ended; `why` is a sentence for people."""

    kind: StopKind
    why: str


BUDGET: Final = Stop("budget", "the budget ended")


def trials_without_progress(records: Sequence[Record]) -> int:
    """Trials since the last one that was better than all before it by more than noise."""
    best, since = float("inf"), 0
    for record in records:
        value = record.ratio.median if record.ratio is not None else float("inf")
        since += 1
        if value < best * PROGRESS:
            best, since = value, 0
    return since


def stop_of(records: Sequence[Record], *, wanted: int, points: int, exhaustive: bool, rules: Rules) -> Stop | None:
    """Why the search may end now, or None.

    Args:
        records: in the order they finished. wanted: trials asked for. points: of the space.
        exhaustive: whether every point is to be tried, so that a stall means nothing.
        rules: for ending early.
    """
    if len(records) >= points:
        return Stop("every point", f"all {points} points of the space were tried")
    timed = [(r.ratio.median, r.roof_share) for r in records if r.ratio is not None and r.roof_share is not None]
    _, share = min(timed, default=(0.0, 0.0))
    if rules.bytes_moved >= ROOF_BYTES and len(timed) >= ROOF_TRIALS and ROOF <= share <= NO_ROOF:
        return Stop("roof", f"the best candidate moves its bytes at {share:.0%} of a copy's pace: nothing is left to gain")
    if len(records) >= wanted:
        return Stop("trials", f"{wanted} trials were done")
    if rules.patience is not None and not exhaustive and trials_without_progress(records) >= rules.patience:
        return Stop("stalled", f"no better candidate in the last {rules.patience} trials")
    return None
