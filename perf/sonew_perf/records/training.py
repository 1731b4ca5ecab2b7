"""Training runs as one series per method, band and batch: seconds of a step do not depend on learning rate and seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sonew_perf.records.checks import Fields, is_number
from sonew_perf.records.model import Machine, Point, Series
from sonew_perf.records.results import STATUSES, Result, done_point, plan_facts, quantile, series_id

BF16_STATE = "-bf16-state"


def _series(fields: Fields, machine: Machine) -> Series:
    method, batch = fields.name("method"), fields.count("batch")
    band = fields.count("band") if method.startswith("sonew") else None
    return Series(
        kernel="training",
        case=method if band is None else f"{method} band {band}",
        measure="time",
        unit="s",
        framework="torch",
        workload=fields.name("task"),
        elements=0,
        dtype="float32, bfloat16 state" if method.endswith(BF16_STATE) else "float32",
        band=band,
        variant="" if batch is None else f"batch={batch}",
        machine=machine.id,
    )


def _seconds(fields: Fields) -> float:
    """Wall seconds of a step."""
    wall, steps = fields.number("wall_s"), fields.count("steps")
    if not wall:
        fields.refuse("wall_s", "a number above 0")
    if not steps:
        fields.refuse("steps", "a number above 0")
    return wall / steps


def _check_losses(fields: Fields) -> None:
    """Whether the result and the losses of the steps are numbers, or null where training diverged."""
    losses = fields.values.get("losses")
    if not isinstance(losses, list | None) or not all(loss is None or is_number(loss) for loss in losses or ()):
        fields.refuse("losses", "a list of numbers and nulls")
    if (loss := fields.values.get("loss")) is not None and not is_number(loss):
        fields.refuse("loss", "a number or null")


def _distinct(members: Sequence[Fields], name: str) -> str:
    values = sorted({value for fields in members if (value := fields.number(name)) is not None})
    return " ".join(f"{value:g}" for value in values)


def _facts(members: Sequence[Fields]) -> dict[str, Any]:
    """What the training runs of a series were, and the optimizer's share of a step."""
    own = sorted(spent / (fields.count("steps") or 1) for fields in members if (spent := fields.number("optimizer_s")) is not None)
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
