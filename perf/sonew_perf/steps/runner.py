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
from sonew_kernels.spec import STORAGE_BYTES
from sonew_kernels.traffic import direction_bytes, update_bytes
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


def dtype_of(settings: Mapping[str, str | int]) -> str:
    """The types of parameters and state, as a series names them."""
    state = settings.get("state", "float32")
    return "float32" if state == "float32" else f"float32, {state} state"


def bytes_moved(settings: Mapping[str, str | int], elements: int, phase: str = "") -> int | None:
    """Fewest bytes that a case, or a phase of it, moves; None where nobody has counted. SONew's are counted in `sonew_kernels.traffic`."""
    if settings.get("roof") == "copy":
        return 2 * STORAGE_BYTES["float32"] * elements
    if settings.get("optimizer") != "SONew":
        return None
    size = STORAGE_BYTES[str(settings.get("state", "float32"))]
    moved = {
        "direction": direction_bytes(int(settings["band"]), state_bytes=size, direction_bytes=size),
        "update": update_bytes(direction_bytes=size),
    }
    if not phase:
        return elements * sum(moved.values())
    return elements * moved[phase] if phase in moved else None


def measure(
    workload: Workload,
    all_cases: Sequence[TimedCase],
    *,
    rounds: int,
    device: torch.device,
    machine: Mapping[str, str | int],
    phases: bool = True,
) -> list[Entry]:
    """Time every case in interleaved rounds.

    Args:
        workload: what the cases work on.
        all_cases: the cases, the peers among them.
        rounds: samples per case.
        device: where they run.
        machine: its description, for the record.
        phases: whether the phases of SONew's cases are timed afterwards, each on its own.

    Returns:
        One entry per case in their order: samples, median, 20th and 80th percentile in ms, paired ratios to fused AdamW and to
        the copy where they are among the cases, state and peak bytes (parameters and gradients included in the peak), phases, plans.
    """
    shared = shared_fields(workload, machine)
    samples = interleave({case.name: case.work for case in all_cases}, rounds=rounds, device=device.type)
    peers = [name for name in PEERS if name in samples]
    return [
        shared | own_fields(case.settings, workload) | case_entry(case, samples, device, peers=peers, phases=phases) for case in all_cases
    ]


def shared_fields(workload: Workload, machine: Mapping[str, str | int]) -> Entry:
    """What all cases of a workload have in common, to be asked for before they run."""
    return {
        "kind": "step time",
        "kernel": "step",
        "framework": "torch",
        "workload": workload.described(),
        "machine": dict(machine),
        "load_before": round(os.getloadavg()[0], 2),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def own_fields(settings: Mapping[str, str | int], workload: Workload, phase: str = "") -> Entry:
    """What a record says of a case, or a phase of it, whether it was timed or not."""
    return {"dtype": dtype_of(settings), "bytes_moved": bytes_moved(settings, workload.elements, phase)}
