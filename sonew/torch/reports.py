"""What an optimizer tells about itself: plans, memory, counters. Plain values with a readable `str`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sonew.layout import COUNT
from sonew.torch.groups import LaunchGroup
from sonew.torch.shards import local_of


def explain(groups: Sequence[tuple[str, Sequence[LaunchGroup]]]) -> str:
    """One line per launch group: parameter group with its name, tensors, backend, configuration, and where that comes from."""
    lines = []
    for index, (name, launches) in enumerate(groups):
        for launch in launches:
            plan, problem = launch.plan, launch.plan.problem
            elements = sum(member.leaf.param.numel() for member in launch.members)
            tensors = f"{len(launch.members)} tensor{'s' * (len(launch.members) != 1)}"
            config = ", ".join(f"{name}={value}" for name, value in plan.config.meta) or "no configuration"
            where = f" of {sum(member.leaf.whole for member in launch.members):,}, sharded" if launch.neighbours else ""
            lines.append(
                f"group {index}{name and f' ({name})'}: {tensors}, {elements:,} elements{where}, {problem.param_dtype} on {launch.device}, "
                f"band {problem.band}, chain {problem.chain}: {plan.backend} ({config}); {plan.provenance}"
            )
    return "\n".join(lines) or "no plan yet: prepare() or the first step makes it"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReport:
    """Bytes that an optimizer holds on the devices of this process.

    Attributes:
        parameters: elements of the parameters that have state, as far as they lie here.
        state: momentum, stats and counts.
        direction: the scratch between the two passes of a step, shared by the launch groups of a class.
        tables: address tables, tile maps, border records, partial norms, tables of captures.
        staging: contiguous copies of strided parameters and gradients.
        exchange: what sharded tensors send and receive.
    """

    parameters: int
    state: int
    direction: int
    tables: int
    staging: int
    exchange: int

    @property
    def total(self) -> int:
        """All bytes."""
        return self.state + self.direction + self.tables + self.staging + self.exchange

    def __str__(self) -> str:
        """A short table."""
        rows = [(name, getattr(self, name)) for name in ("state", "direction", "tables", "staging", "exchange", "total")]
        per = f" ({self.total / self.parameters:.2f} bytes per element of {self.parameters:,})" if self.parameters else ""
        return "\n".join(f"{name:<10}{size:>16,} bytes{per if name == 'total' else ''}" for name, size in rows)


def memory_report(states: Sequence[dict[str, Any]], launches: Sequence[LaunchGroup]) -> MemoryReport:
    """Bytes held by these states and launch groups."""
    tensors = [local_of(value) for state in states for value in state.values() if isinstance(value, torch.Tensor)]
    tables = [table for launch in launches if (table := getattr(launch.stepper, "table", None)) is not None]
    directions = {table.direction.untyped_storage().data_ptr(): table.direction.untyped_storage().nbytes() for table in tables}
    sizes = [table.sizes() for table in tables]
    return MemoryReport(
        parameters=sum(member.leaf.param.numel() for launch in launches for member in launch.members),
        state=sum(tensor.nbytes for tensor in tensors),
        direction=sum(directions.values()),
        tables=sum(tables for tables, _ in sizes),
        staging=sum(staging for _, staging in sizes),
        exchange=sum(launch.neighbours.nbytes for launch in launches if launch.neighbours),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorCounters:
    """Counters of one parameter.

    Attributes:
        group, position: which parameter: `param_groups[group]["params"][position]`.
        shape: its shape.
        steps: steps it has taken.
        columns: its columns, one per element, as far as they lie here.
        counted: steps counted since this optimizer was made or loaded from a copy. fallen: columns that fell back in them;
            fallen / (columns counted) is their share.
        direction: |u| of the last step before grafting, of the whole tensor (of the part that lies here, with graft "none"). grafted: the
            norm of what was stepped, before lr and decay.
    """

    group: int
    position: int
    shape: tuple[int, ...]
    steps: int
    columns: int
    counted: int
    fallen: int
    direction: float
    grafted: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What was counted on the devices: `skipped` steps in all, and per parameter that has state `tensors`."""

    skipped: int
    tensors: tuple[TensorCounters, ...]

    def __str__(self) -> str:
        """One line per parameter."""
        lines = [f"{self.skipped} step{'s' * (self.skipped != 1)} skipped"]
        for t in self.tensors:
            share = t.fallen / (t.columns * t.counted) if t.columns * t.counted else 0.0
            lines.append(f"group {t.group}, parameter {t.position} {t.shape}: {share:.2%} of columns fell back, |u| {t.direction:.3g}")
        return "\n".join(lines)


def read_counters(
    groups: Sequence[dict[str, Any]],
    states: dict[torch.Tensor, dict[str, Any]],
    launches: Sequence[LaunchGroup],
    earlier: dict[torch.Tensor, torch.Tensor],
    skipped: int,
) -> Counters:
    """Read what is counted; the host waits for the devices.

    Args:
        groups, states: the optimizer's.
        launches: those in use. earlier: what was counted under plans that were replaced.
        skipped: steps that were skipped.
    """
    places = {param: (index, at) for index, group in enumerate(groups) for at, param in enumerate(group["params"])}
    read = []
    for launch in launches:
        if launch.tally is None:
            continue
        counts, sums = launch.tally.counts, launch.tally.sums.sqrt().tolist()
        for i, member in enumerate(launch.members):
            if (place := places.get(member.param)) is None:
                continue
            fallen, counted = (counts[i] + earlier.get(member.param, torch.zeros_like(counts[i]))).tolist()
            own, wanted = sums[i]
            grafted = own if groups[place[0]]["graft"] == "none" else (wanted if own else 0.0)
            read.append(
                TensorCounters(
                    group=place[0],
                    position=place[1],
                    shape=tuple(member.param.shape),
                    steps=int(states[member.param][COUNT].item()),
                    columns=member.leaf.param.numel(),
                    counted=int(counted),
                    fallen=int(fallen),
                    direction=own,
                    grafted=grafted,
                )
            )
    return Counters(skipped=skipped, tensors=tuple(sorted(read, key=lambda t: (t.group, t.position))))
