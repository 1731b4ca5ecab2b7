"""The phases of SONew's step, each as a workload of its own beside a copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from sonew.torch import SONew
from sonew_autotune.measure import Work, interleave
from sonew_kernels.spec import TRITON, triton_launches
from sonew_perf.entries import timed_entry
from sonew_perf.machine import describe_plans
from sonew_perf.records.files import Entry
from sonew_perf.steps.cases import TimedCase, phase_works
from sonew_perf.steps.runner import own_fields, shared_fields
from sonew_perf.steps.workloads import Workload

PHASES: Final = tuple(triton_launches(TRITON.default(1), 1))


@dataclass(frozen=True, slots=True)
class _Phase:
    """A phase of a case, and its name in a run, which the phases of several cases share."""

    case: TimedCase
    phase: str
    work: Work

    @property
    def name(self) -> str:
        return f"{self.case.name}: {self.phase}"


def _phases_of(case: TimedCase) -> list[_Phase]:
    works = phase_works(case.optimizer) if isinstance(case.optimizer, SONew) else {}
    if works:
        works["prologue"]()  # without its corrections the direction would work on NaN
    return [_Phase(case, name, work) for name, work in works.items()]


def measure_phases(
    workload: Workload, cases: Sequence[TimedCase], copy: TimedCase, *, rounds: int, device: torch.device, machine: Mapping[str, str | int]
) -> list[Entry]:
    """Time every phase of every case in the same interleaved rounds as a copy.

    Args:
        workload: what the cases work on. cases: of SONew, each stepped once. copy: of as many elements.
        rounds: samples per phase. device: where they run. machine: its description, for the record.

    Returns:
        One entry per phase, its ratios to the copy; none for a case without phases of its own (`cases.phase_works`).
    """
    shared = shared_fields(workload, machine)
    phases = [phase for case in cases for phase in _phases_of(case)]
    if not phases:
        return []
    works = {copy.name: copy.work} | {phase.name: phase.work for phase in phases}
    samples = interleave(works, rounds=rounds, device=device.type)
    entries = []
    for phase in phases:
        settings = phase.case.settings
        timed = timed_entry(phase.name, settings, samples, [copy.name])
        own = {"kind": "phase time", "case": phase.case.name, "kernel": phase.phase, "plans": describe_plans(phase.case.optimizer)}
        entries.append(shared | own_fields(settings, workload, phase.phase) | timed | own)
    return entries
