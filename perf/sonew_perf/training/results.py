"""Entries of training runs taken apart with checks, whoever wrote them. No framework is loaded here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sonew_perf.records.checks import Fields, is_number
from sonew_perf.records.files import Entry
from sonew_perf.training.runs import KIND

PACKAGES: Final = ("torch", "jax")  # whose versions tables name


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What training runs must share to be held against each other; seconds of another machine say nothing.

    Attributes:
        task, lr_rule, schedule_steps, steps, batch: as `runs.Run`. every: steps that a recorded mean loss is over.
        data: its name; sha256: of its content.
        device, type, threads: of the machine; flags: instruction sets of its CPU, "" where nobody said.
    """

    task: str
    data: str
    sha256: str
    lr_rule: str
    schedule_steps: int
    steps: int
    every: int
    batch: int
    device: str
    type: str
    threads: int
    flags: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One training run's result.

    Attributes:
        conditions: of the run. label, method, framework, precision, seed: as `runs.Run`. lr: peak of the learning rate.
        others: every other setting, as (name, value).
        means: recorded training losses, each the mean of `Conditions.every` steps; inf once diverged.
        step_s, optimizer_step_s: seconds of a step, and of the optimizer in it. state_bytes: of the optimizer.
        layers: shares of columns that fell back, by layer, one for each look; empty where nobody counted.
        load: average before the run, None where nobody looked.
        entry: all of it, with a `loss` and `plans`.
    """

    conditions: Conditions
    label: str
    method: str
    framework: str
    precision: str
    lr: float
    others: tuple[tuple[str, Any], ...]
    seed: int
    means: tuple[float, ...]
    step_s: float
    optimizer_step_s: float
    state_bytes: int
    layers: Mapping[str, tuple[float, ...]]
    load: float | None
    entry: Entry

    @property
    def fallback(self) -> float | None:
        """The largest share of a layer's columns that fell back at the end; None where nobody counted."""
        return max((shares[-1] for shares in self.layers.values()), default=None)


def _whole(fields: Fields, name: str, least: int) -> int:
    value = fields.count(name)
    if value is None or value < least:
        fields.refuse(name, f"a whole number of at least {least}")
    return value


def _positive(fields: Fields, name: str) -> float:
    if not (value := fields.number(name)):
        fields.refuse(name, "a number above 0")
    return value


def _conditions(fields: Fields) -> Conditions:
    data, machine = fields.inner("data"), fields.inner("machine")
    for package in PACKAGES:
        machine.name(package, "")
    return Conditions(
        task=fields.name("task"),
        data=data.name("name"),
        sha256=data.name("sha256"),
        lr_rule=fields.name("lr_rule"),
        schedule_steps=_whole(fields, "schedule_steps", 1),
        steps=_whole(fields, "steps", 1),
        every=_whole(fields, "losses_every", 1),
        batch=_whole(fields, "batch", 1),
        device=machine.name("device"),
        type=machine.name("type"),
        threads=_whole(machine, "threads", 0),
        flags=machine.name("flags", ""),
    )


def _means(fields: Fields, conditions: Conditions) -> tuple[float, ...]:
    losses, expected = fields.values.get("losses"), -(-conditions.steps // conditions.every)
    if not isinstance(losses, list) or len(losses) != expected or not all(loss is None or is_number(loss) for loss in losses):
        fields.refuse("losses", f"a list of {expected} numbers and nulls")
    return tuple(math.inf if loss is None else float(loss) for loss in losses)


def _layers(fields: Fields) -> dict[str, tuple[float, ...]]:
    layers = fields.inner("fallback").inner("layers")
    return {name: shares for name in layers.values if (shares := layers.numbers(name))}


def read_result(entry: Mapping[str, Any]) -> Result | None:
    """The result that an entry holds; None where it is of another kind, or of the older form without a label.

    Raises:
        RecordError: a field is missing, or not what it should be.
    """
    if entry.get("kind") != KIND or entry.get("label") is None:
        return None
    fields = Fields(f"training run {entry['label']!r:.80}" + (f" of {entry['run']!r:.80}" if "run" in entry else ""), entry)
    conditions, lr = _conditions(fields), _positive(fields, "lr")
    fields.number("loss")  # null: training diverged
    for plan in fields.objects("plans"):
        plan.inner("config")
        plan.text("backend")
        plan.text("provenance")
    step_s, optimizer_step_s = _positive(fields, "step_s"), _positive(fields, "optimizer_step_s")
    if optimizer_step_s > step_s:
        fields.refuse("optimizer_step_s", f"at most the {step_s} of a step")
    return Result(
        conditions=conditions,
        label=fields.name("label"),
        method=fields.name("method"),
        framework=fields.name("framework"),
        precision=fields.name("precision"),
        lr=lr,
        others=tuple(sorted((name, value) for name, value in fields.inner("hyper").scalars().items() if name != "lr")),
        seed=_whole(fields, "seed", 0),
        means=_means(fields, conditions),
        step_s=step_s,
        optimizer_step_s=optimizer_step_s,
        state_bytes=_whole(fields, "state_bytes", 0),
        layers=_layers(fields),
        load=fields.number("load_before"),
        entry={**entry, "loss": entry.get("loss"), "plans": entry.get("plans") or []},
    )
