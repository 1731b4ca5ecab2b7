"""Training runs as one series per method and what it does: seconds of a step do not depend on learning rate and seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from sonew_perf.records.checks import Fields, is_number
from sonew_perf.records.model import Machine, Point, Series
from sonew_perf.records.results import STATUSES, Result, done_point, plan_facts, quantile, series_id
from sonew_perf.training.runs import PLAIN

OLDER_LABELS: Final[Mapping[str, str]] = {  # by method, of records until 2026-11-23, whose entries have none
    "sonew": "SONew band {band}",
    "sonew-bf16-state": "SONew band {band}, bf16 state",
    "adamw": "AdamW",
}
BF16_STATE: Final = "-bf16-state"  # of a method's name, in records without a precision
ROUNDED: Final = "bf16-rounded"
DTYPES: Final[Mapping[str, str]] = {  # of parameters and state, by precision
    "fp32": "float32",
    "bf16-state": "float32, bfloat16 state",
    "bf16": "bfloat16",
    ROUNDED: "bfloat16",
}


def _variant(fields: Fields, precision: str) -> str:
    """The batch, and settings that decide what a step does where they are not the plain ones."""
    batch, hyper = fields.count("batch"), fields.inner("hyper").scalars()
    said = [] if batch is None else [f"batch={batch}"]
    said += [f"{name}={hyper[name]}" for name, plain in PLAIN.items() if name in hyper and hyper[name] != plain]
    said += ["rounding=stochastic"] * (precision == ROUNDED)
    return Fields(fields.where, {"variant": ", ".join(said)}).name("variant", "")


def _series(fields: Fields, machine: Machine) -> Series:
    method = fields.name("method")
    band = fields.count("band") if method.startswith("sonew") else None
    precision = fields.choice("precision", tuple(DTYPES), "bf16-state" if method.endswith(BF16_STATE) else "fp32")
    return Series(
        kernel="training",
        case=method if band is None else f"{method} band {band}",
        measure="time",
        unit="s",
        framework=fields.name("framework", "torch"),
        workload=fields.name("task"),
        elements=0,
        dtype=DTYPES[precision],
        band=band,
        variant=_variant(fields, precision),
        machine=machine.id,
    )


def _per_step(fields: Fields, median: str, total: str) -> float | None:
    """Seconds of a step: the median where it is recorded, else the mean."""
    if own := fields.number(median):
        return own
    spent, steps = fields.number(total), fields.count("steps")
    return spent / steps if spent is not None and steps else None


def _seconds(fields: Fields) -> float:
    """Wall seconds of a step."""
    if not (seconds := _per_step(fields, "step_s", "wall_s")):
        if not fields.count("steps"):
            fields.refuse("steps", "a number above 0")
        fields.refuse("wall_s", "a number above 0")
    return seconds


def _check_losses(fields: Fields) -> None:
    """Whether the result and the losses on the way are numbers, or null where training diverged."""
    losses = fields.values.get("losses")
    if not isinstance(losses, list | None) or not all(loss is None or is_number(loss) for loss in losses or ()):
        fields.refuse("losses", "a list of numbers and nulls")
    if (loss := fields.values.get("loss")) is not None and not is_number(loss):
        fields.refuse("loss", "a number or null")
    if fields.count("losses_every") == 0:
        fields.refuse("losses_every", "a number above 0")


def _distinct(members: Sequence[Fields], name: str) -> str:
    values = sorted({value for fields in members if (value := fields.number(name)) is not None})
    return " ".join(f"{value:g}" for value in values)


def _facts(members: Sequence[Fields]) -> dict[str, Any]:
    """What the training runs of a series were, and the optimizer's share of a step."""
    own = sorted(spent for fields in members if (spent := _per_step(fields, "optimizer_step_s", "optimizer_s")) is not None)
    facts: dict[str, Any] = {"training_runs": len(members), "rates": _distinct(members, "lr"), "seeds": _distinct(members, "seed")}
    return facts | ({"optimizer_seconds_per_step": quantile(own, 0.5)} if own else {}) | plan_facts(members[0])


def training_results(entries: Sequence[tuple[int, Fields]], machine: Callable[[Fields], Machine], run: str) -> Iterator[Result]:
    """A point per series, with a sample per training run; it stands for its first entry. One that only failed has the first reason.

    Args:
        entries: index in the record and content. machine: of an entry. run: id.
    """
    groups: dict[Series, list[tuple[int, Fields]]] = {}
    for index, fields in entries:
        _check_losses(fields)
        groups.setdefault(_series(fields, machine(fields)), []).append((index, fields))
    for series, members in groups.items():
        done = [fields for _, fields in members if fields.choice("status", STATUSES, "done") == "done"]
        first, fields = members[0]
        if done:
            point = done_point(series, run, tuple(map(_seconds, done)), {}, _facts(done))
        else:
            status = fields.choice("status", STATUSES, "done")
            point = Point(series=series_id(series), run=run, status=status, reason=fields.text("reason", ""))  # type: ignore[arg-type]  # `choice` checked it
        yield Result(series, point, first)
