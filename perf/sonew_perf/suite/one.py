"""One group over a workload of the user's choice, in this process."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sonew_perf.machine import describe
from sonew_perf.records.files import Entry
from sonew_perf.steps import runner
from sonew_perf.steps.cases import Wanted
from sonew_perf.steps.workloads import Workload
from sonew_perf.suite.gate import Check, check_case, ready_cases
from sonew_perf.suite.run import FAILED


def measure_one(
    workload: Workload, wanted: Sequence[Wanted], device: torch.device, *, rounds: int, check: Check = check_case
) -> list[Entry]:
    """Check the cases and time those that passed, all in the same interleaved rounds.

    Args:
        workload: what they step. wanted: the cases. device: where. rounds: samples per case.
        check: raises for a case that must not be timed.

    Returns:
        `runner.measure`'s entry of every case in order; of one that failed, its reason.

    Raises:
        InvalidConfigError: a case that nobody can step.
    """
    ready, reasons = ready_cases(wanted, workload, device, check=check)
    machine = describe(device)
    shared = runner.shared_fields(workload, machine)
    entries = runner.measure(workload, ready, rounds=rounds, device=device, machine=machine) if ready else []
    timed = {entry["case"]: entry for entry in entries}
    return [timed.get(case.name) or _failed(shared, case, workload, reasons[case.name]) for case in wanted]


def _failed(shared: Entry, case: Wanted, workload: Workload, reason: str) -> Entry:
    own = {"case": case.name, "settings": dict(case.settings), "status": FAILED, "reason": reason}
    return shared | own | runner.own_fields(case.settings, workload)
