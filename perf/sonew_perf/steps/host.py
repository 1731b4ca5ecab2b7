"""Host time of a step: what Python and torch's dispatch cost for a model's tensors when the device has nothing to do.

Every tensor has one element, and SONew's launches are replaced by nothing: the optimizer, its checks, its plan and the address table
are real. AdamW is timed as it is, with its kernel's loop over tiny tensors, and with its two kernel calls replaced by nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final
from unittest.mock import patch

import torch
from rich.console import Group

from sonew.backends import reference_torch
from sonew.backends.table import GroupTable, Leaf
from sonew.config import Hyper, Plan
from sonew.dispatch import split_launch_groups
from sonew.torch import SONew, planning
from sonew_autotune.measure import Work, cpu_clock, interleave
from sonew_autotune.problems import Shapes
from sonew_perf.records.files import Entry
from sonew_perf.steps.cases import TimedCase
from sonew_perf.steps.runner import case_entry
from sonew_perf.steps.workloads import LR, Workload
from sonew_perf.tables import multiple, plain_table, titled

TARGET: Final = 3.0  # at most so many times the host time of fused AdamW, kernels left out on both sides
SAMPLE_S: Final = 0.005  # short, with many rounds: a burst of another process's work spoils few of them
TILE: Final = 1024  # any: nothing works on the tiles
GRADIENTS: Final[Mapping[str, str]] = {
    "stay": "the same gradients in every step",
    "new": "zero_grad(set_to_none=True) and a backward pass before every step, which gives every gradient another address",
}
CPU: Final = torch.device("cpu")
OURS, FUSED, BARE, FOREACH = "SONew bare", "AdamW fused", "AdamW fused bare", "AdamW foreach"  # bare: launches or kernels left out


class NullGroup:
    """A step group whose phases do nothing but count; its address table is the compiled backends' own."""

    def __init__(
        self,
        leaves: Sequence[Leaf],
        plan: Plan,
        *,
        direction: torch.Tensor | None = None,
        counted: bool = False,  # noqa: ARG002  # the backend protocol's signature; nothing falls back here
    ) -> None:
        self.table = GroupTable(leaves, plan.problem, tile=TILE, update_tile=TILE, direction=direction)
        self.launches = 0

    def set_hyper(self, hyper: Hyper, lr: torch.Tensor | None = None) -> None:
        """Settings, as `GroupTable.set_hyper`."""
        self.table.set_hyper(hyper, lr)

    def bind(self, grads: Sequence[torch.Tensor | None]) -> None:
        """Gradients, as `GroupTable.bind`: refreshes the addresses."""
        self.table.bind(grads)

    def signal(self, grad_scale: torch.Tensor | None, skip: torch.Tensor | None) -> None:
        """Loss scale and skip, as `GroupTable.signal`."""
        self.table.signal(grad_scale, skip)

    def prologue(self) -> None:
        """Count what would have been a launch."""
        self.launches += 1

    direction = norms = update = prologue


@dataclass(frozen=True, slots=True)
class HostStep:
    """A step of which only the step itself is timed.

    Attributes:
        step: what is timed.
        renew: called before each step.
        around: entered around all of a sample.
    """

    step: Work
    renew: Callable[[], object] | None = None
    around: Callable[[], AbstractContextManager[object]] = nullcontext

    def __call__(self) -> None:
        """One step."""
        host_clock(self, 1)


def host_clock(work: Work, repetitions: int) -> float:
    """Seconds that so many calls take on the host; of a `HostStep`, the steps alone."""
    if not isinstance(work, HostStep):
        return cpu_clock(work, repetitions)
    with work.around():
        if work.renew is None:
            return cpu_clock(work.step, repetitions)
        spent = 0.0
        for _ in range(repetitions):
            work.renew()
            start = time.perf_counter()
            work.step()
            spent += time.perf_counter() - start
        return spent


def scalars(shapes: Shapes) -> list[torch.nn.Parameter]:
    """A parameter of one element for each shape, with as many dimensions, and its gradient."""
    params = [torch.nn.Parameter(torch.ones((1,) * len(shape))) for shape in shapes]
    for param in params:
        param.grad = torch.ones_like(param)
    return params


def renew_gradients(params: Sequence[torch.nn.Parameter]) -> None:
    """New gradients from a backward pass. The old ones live until it is over, so that no new one lies where an old one did."""
    old = [param.grad for param in params]
    for param in params:
        param.grad = None
    torch.autograd.backward([2.0 * param for param in params], [torch.ones_like(param) for param in params])
    old.clear()


def null_sonew(shapes: Shapes, band: int) -> tuple[SONew, list[NullGroup]]:
    """A ready `SONew` whose launches do nothing, and its launch groups: cut as the true shapes would be."""
    optimizer = SONew(scalars(shapes), lr=LR, band=band, tuning="off", backend="reference")
    splits = split_launch_groups([torch.Size(shape).numel() for shape in shapes])
    made: list[NullGroup] = []

    def make(leaves: Sequence[Leaf], plan: Plan, *, direction: torch.Tensor | None = None, counted: bool = False) -> NullGroup:
        made.append(NullGroup(leaves, plan, direction=direction, counted=counted))
        return made[-1]

    with patch.object(reference_torch, "StepGroup", make), patch.object(planning, "split_launch_groups", lambda _lengths: splits):
        optimizer.step()
    return optimizer, made


def _nothing(*_arguments: object, **_options: object) -> None:
    """Stands in for a kernel."""


def without_kernels() -> AbstractContextManager[object]:
    """Inside, fused AdamW does everything but call its two kernels, the step count's and its own."""
    return patch.multiple(torch, _fused_adamw_=_nothing, _foreach_add_=_nothing)


def _adamw(shapes: Shapes, implementation: str) -> torch.optim.AdamW:
    return torch.optim.AdamW(scalars(shapes), lr=LR, fused=implementation == "fused", foreach=implementation == "foreach")


def _name(case: str, gradients: str) -> str:
    return f"{case}, gradients {gradients}"


def described(workload: Workload) -> Entry:
    """As a record says it: as many tensors, of one element each."""
    return {"name": workload.name, "tensors": len(workload.shapes), "elements": len(workload.shapes), "dtype": "float32"}


def case_settings() -> list[tuple[str, dict[str, str]]]:
    """Name and settings of every case."""
    optimizers = (OURS, FUSED, BARE, FOREACH)
    return [(_name(case, kind), {"optimizer": case, "gradients": kind}) for kind in GRADIENTS for case in optimizers]


def host_cases(shapes: Shapes, band: int) -> tuple[list[TimedCase], list[NullGroup]]:
    """Every optimizer under both kinds of gradients, each with tensors of its own, and SONew's launch groups."""
    built, groups = [], []
    for gradients in GRADIENTS:
        ours, made = null_sonew(shapes, band)
        groups += made
        peers: dict[str, torch.optim.Optimizer] = {
            OURS: ours,
            FUSED: _adamw(shapes, "fused"),
            BARE: _adamw(shapes, "fused"),
            FOREACH: _adamw(shapes, "foreach"),
        }
        for case, optimizer in peers.items():
            renew = partial(renew_gradients, optimizer.param_groups[0]["params"]) if gradients == "new" else None
            work = HostStep(optimizer.step, renew, without_kernels if case == BARE else nullcontext)
            settings = {"optimizer": case, "gradients": gradients}
            built.append(TimedCase(name=_name(case, gradients), work=work, optimizer=optimizer, settings=settings, counted=False))
    return built, groups


def launches_per_step(cases: Sequence[TimedCase], groups: Sequence[NullGroup]) -> int:
    """Launches that one step of SONew would make, counted."""
    before = sum(group.launches for group in groups)
    next(case for case in cases if isinstance(case.optimizer, SONew)).work()
    return sum(group.launches for group in groups) - before


def measure_host(workload: Workload, *, band: int, rounds: int, machine: Mapping[str, str | int]) -> list[Entry]:
    """Time the host's part of a step, all optimizers in the same interleaved rounds.

    Args:
        workload: its tensors' number and dimensions, and the launch groups that they make.
        band: of SONew.
        rounds: samples per case.
        machine: its description, for the record.

    Returns:
        One entry per case: samples, median, percentiles and least time in ms, paired ratios to fused AdamW with and without its kernels
        under the same kind of gradients; `launches` and `launch_groups`, which were left out of SONew's time.
    """
    load = round(os.getloadavg()[0], 2)
    timed, groups = host_cases(workload.shapes, band)
    samples = interleave({case.name: case.work for case in timed}, rounds=rounds, target_sample_s=SAMPLE_S, clock=host_clock)
    shared = {
        "kind": "host time",
        "kernel": "host",
        "framework": "torch",
        "workload": described(workload),
        "band": band,
        "launch_groups": len(groups) // len(GRADIENTS),
        "launches": launches_per_step(timed, groups),
        "machine": dict(machine),
        "load_before": load,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    entries = []
    for case in timed:
        peers = [_name(peer, str(case.settings["gradients"])) for peer in (FUSED, BARE)]
        entry = case_entry(case, samples, CPU, peers=peers, phases=False)
        entries.append({**shared, **entry, "least_ms": min(entry["samples_ms"]), "plans": []})
    return entries


def _against(entry: Entry, peer: str) -> dict[str, float]:
    ratio: dict[str, float] = entry["against"][_name(peer, entry["settings"]["gradients"])]
    return ratio


def host_table(entries: Sequence[Entry], headline: str) -> Group:
    """One row per case, in microseconds."""
    first = entries[0]
    tensors, groups, launches = first["workload"]["tensors"], first["launch_groups"], first["launches"]
    notes = (
        f"{headline}; load average before the run {first['load_before']}\n{len(first['samples_ms'])} interleaved rounds: median and least "
        "us; spread, 20th to 80th percentile over the median; multiples, median of the per-round ratios (bare: with its 95 % interval). "
        f"bare: without AdamW's two kernel calls; without SONew's {launches} launches and, on a GPU, its upload of {groups} address tables "
        "when gradients moved.\n" + "\n".join(f"gradients {name}: {meaning}" for name, meaning in GRADIENTS.items())
    )
    table = plain_table(("case", "gradients", "us", "least", "spread", "x fused", "x fused bare"))
    for entry in entries:
        table.add_row(
            entry["settings"]["optimizer"],
            entry["settings"]["gradients"],
            f"{1000 * entry['median_ms']:.0f}",
            f"{1000 * entry['least_ms']:.0f}",
            f"{(entry['p80_ms'] - entry['p20_ms']) / entry['median_ms']:.0%}",
            f"{_against(entry, FUSED)['median']:.2f}",
            multiple(_against(entry, BARE)),
            style="bold" if entry["settings"]["optimizer"] == OURS else None,
        )
    name, band = first["workload"]["name"], first["band"]
    title = f"Host time of a step: {name}, {tensors} tensors of one element, launch groups: {groups}, band: {band}"
    return titled(title, table, notes)


def verdict_lines(entries: Sequence[Entry]) -> list[str]:
    """Per kind of gradients whether the target is met: both bare, which is the stricter comparison."""
    lines = []
    for entry in entries:
        if entry["settings"]["optimizer"] == OURS:
            ratio = _against(entry, BARE)
            verdict = "met" if ratio["median"] <= TARGET else "missed"
            kind = entry["settings"]["gradients"]
            lines.append(f"Target {verdict}, gradients {kind}: {multiple(ratio)} times fused AdamW, both bare; at most {TARGET:g}")
    return lines
