"""Records of training over a grid of learning rates at a constant rate, as they were kept until 2026-11-23: entries without a label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sonew_perf.records.files import Entry
from sonew_perf.records.training import OLDER_LABELS
from sonew_perf.training.summary import Curve, curves

OURS: Final = "sonew"
BF16: Final = "sonew-bf16-state"
BASELINE: Final = "adamw"


def by_method(entries: Sequence[Entry]) -> dict[str, Curve]:
    """The methods, each of one band, over the grid."""
    labelled = [entry | {"label": OLDER_LABELS[entry["method"]].format(band=entry["band"])} for entry in entries]
    return {curve.method: curve for curve in curves(labelled)}
