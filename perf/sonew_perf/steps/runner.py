"""Times the cases of a workload against each other and makes the entries of a record."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import torch

from sonew.torch import SONew
from sonew_autotune.measure import Samples, interleave
from sonew_autotune.memory import held_bytes, peak_bytes
from sonew_perf.entries import digits, timed_entry
from sonew_perf.machine import describe_plans
from sonew_perf.records.files import Entry
from sonew_perf.steps.cases import TimedCase, phase_works
from sonew_perf.steps.workloads import Workload

PEERS: Final = ("AdamW fused", "copy")  # what every case is a multiple of


def _phases(case: TimedCase, device: torch.device) -> dict[str, float]:
    """Median milliseconds of each phase, timed on its own after the cases."""
    works = phase_works(case.optimizer) if isinstance(case.optimizer, SONew) else {}
    if works:
        works["prologue"]()  # without its corrections the direction would work on NaN
    timed = interleave(works, device=device.type) if works else {}
    return {name: digits(samples.median_ms) for name, samples in timed.items()}


def case_entry(
    case: TimedCase, samples: Mapping[str, Samples], device: torch.device, *, peers: Sequence[str] = PEERS, phases: bool = True
) -> Entry:
    """What a record says of one case.

    Args:
        case: the case.
        samples: of every case of the run, by name.
        device: where they ran.
        peers: names of the cases it is a multiple of.
        phases: whether the phases of a `SONew` are timed now, each on its own.
    """
    held = [case.optimizer] if case.optimizer is not None else []
    return timed_entry(case.name, case.settings, samples, peers) | {
        "state_bytes": held_bytes(case.optimizer.state) if case.optimizer is not None else 0,
        "peak_bytes": peak_bytes(case.work, *held, device=device.type) + case.pool_bytes if held and case.counted else None,
        "phases_ms": _phases(case, device) if phases else {},
        "plans": describe_plans(case.optimizer),
    }


def measure(
    workload: Workload, all_cases: Sequence[TimedCase], *, rounds: int, device: torch.device, machine: Mapping[str, str | int]
) -> list[Entry]:
    """Time every case in interleaved rounds.

    Args:
        workload: what the cases work on.
        all_cases: the cases, the peers among them.
        rounds: samples per case.
        device: where they run.
        machine: its description, for the record.

    Returns:
        One entry per case in their order: samples, median, 20th and 80th percentile in ms, paired ratios to fused AdamW and to
        the copy, state and peak bytes (parameters and gradients included in the peak), phases, plans.
    """
    load = round(os.getloadavg()[0], 2)
    samples = interleave({case.name: case.work for case in all_cases}, rounds=rounds, device=device.type)
    shared = {
        "kind": "step time",
        "workload": workload.described(),
        "machine": dict(machine),
        "load_before": load,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return [{**shared, **case_entry(case, samples, device)} for case in all_cases]
