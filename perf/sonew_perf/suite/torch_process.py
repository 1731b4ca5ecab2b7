"""What the process of a torch group does: build, check, time. It answers one request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from sonew_autotune.trials.outcome import Failure
from sonew_perf.gpu.timing import reason_of
from sonew_perf.machine import describe
from sonew_perf.records.files import Entry
from sonew_perf.steps import host
from sonew_perf.steps.cases import COPY
from sonew_perf.steps.phases import measure_phases
from sonew_perf.steps.runner import measure
from sonew_perf.steps.workloads import Workload
from sonew_perf.suite.gate import Check, check_case, ready_cases
from sonew_perf.suite.groups import HOST, PHASE, Group


@dataclass(frozen=True, slots=True)
class Request:
    """A group, and how many rounds of it."""

    group: Group
    rounds: int


@dataclass(frozen=True, slots=True)
class Timed:
    """What became of a group: entries of the cases that were timed, reasons of those that were not, by name."""

    entries: list[Entry]
    reasons: Mapping[str, str]


Answer = Timed | Failure


def time_group(request: Request, *, check: Check = check_case) -> Timed:
    """Time a group in this process.

    Raises:
        Exception: what is not a single case's fault.
    """
    group, workload = request.group, request.group.workload or Workload("", ())
    device = torch.device(group.device)
    machine = describe(device)
    if group.what == HOST:
        return Timed(host.measure_host(workload, band=group.bands[0], rounds=request.rounds, machine=machine), {})
    ready, reasons = ready_cases(group.wanted, workload, device, check=check)
    if group.what == PHASE:
        copy = COPY.build(workload, device)
        return Timed(measure_phases(workload, ready, copy, rounds=request.rounds, device=device, machine=machine), reasons)
    entries = measure(workload, ready, rounds=request.rounds, device=device, machine=machine, phases=False) if ready else []
    return Timed(entries, reasons)


def make_answer() -> Callable[[Request], Answer]:
    """What the worker process answers with."""

    def answer(request: Request) -> Answer:
        try:
            return time_group(request)
        except Exception as error:  # noqa: BLE001  # the process reports and the run goes on
            return Failure("memory" if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) else "error", reason_of(error))

    return answer
