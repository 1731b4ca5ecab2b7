"""Training runs as they were recorded until 2026-11-23 (at a constant rate, with a loss per step), in the form of today's."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Final

from sonew_perf.dashboard.content import Row
from sonew_perf.records.checks import Fields, is_number
from sonew_perf.records.training import OLDER_LABELS

LAST_STEPS: Final = 20  # where a record has no result of its own, the mean loss over these
ELEMENTS: Final[Mapping[str, int]] = {"autoencoder": 2_837_314}  # parameters of a task's model
STATE_BYTES: Final[Mapping[str, Callable[[int], int]]] = {  # per parameter, by band: momentum and band + 1 rows, or two means
    "sonew": lambda band: 4 * (band + 2),
    "sonew-bf16-state": lambda band: 2 * (band + 2),
    "adamw": lambda _band: 8,
}


def renewed(entry: Row) -> Row:
    """An older entry with the fields of a newer one.

    Raises:
        RecordError: it lacks what a curve needs.
    """
    fields = Fields("training run", entry)
    method, task, band = fields.name("method"), fields.name("task"), fields.count("band", 0) or 0
    losses, steps = entry.get("losses"), fields.count("steps")
    if not isinstance(losses, list) or not losses or not all(loss is None or is_number(loss) for loss in losses):
        fields.refuse("losses", "a list of numbers and nulls")
    per_element = STATE_BYTES.get(method)
    counted = 0 if per_element is None else per_element(band) * ELEMENTS.get(task, 0)
    return entry | {
        "label": _label(fields, method, band),
        "framework": "torch",
        "precision": "bf16-state" if method.endswith("-bf16-state") else "fp32",
        "lr_rule": fields.name("lr_rule", "constant"),
        "schedule_steps": steps,
        "losses_every": 1,
        "loss": entry["loss"] if "loss" in entry else _end(losses),
        "data": {"name": "MNIST training images", "sha256": fields.inner("images").text("sha256", "unknown")},
        "hyper": _hyper(fields) | ({"band": band} if method.startswith("sonew") else {}),
        "step_s": (fields.number("wall_s") or 0) / steps if steps else None,
        "optimizer_step_s": (fields.number("optimizer_s") or 0) / steps if steps else None,
        "state_bytes": fields.count("state_bytes", counted),
        "fallback": None,  # a share of the last step, over all layers
    }


def _hyper(fields: Fields) -> Row:
    """The settings, of which the averages' decays stood in a list."""
    hyper = fields.inner("hyper")
    betas = hyper.numbers("betas")
    return {**dict(zip(("beta1", "beta2"), betas, strict=False)), **hyper.scalars()}


def _label(fields: Fields, method: str, band: int) -> str:
    """The method with what changes what it does, but not its learning rate."""
    gamma = fields.inner("hyper").number("gamma")
    return OLDER_LABELS.get(method, method).replace("{band}", str(band)) + ("" if gamma is None else f", gamma {gamma:g}")


def _end(losses: list[float | None]) -> float | None:
    last = [loss for loss in losses[-LAST_STEPS:] if loss is not None]
    return statistics.fmean(last) if len(last) == len(losses[-LAST_STEPS:]) else None
