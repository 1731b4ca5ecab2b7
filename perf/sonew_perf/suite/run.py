"""Runs groups one after another, each in a process of its own. What fails or cannot run is a result, and the others go on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import torch

from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.turns import DeviceBusyError
from sonew_perf.entries import MESSAGE_CHARACTERS, in_one_line, installed_version
from sonew_perf.gpu.identity import describe_device
from sonew_perf.jax.ask import NO_JAX, jax_gpu_problem
from sonew_perf.machine import describe
from sonew_perf.records.files import Entry
from sonew_perf.suite.budget import Budget
from sonew_perf.suite.estimates import estimate_s, limit_s, needed_bytes
from sonew_perf.suite.groups import HOST, IMPORT, Group
from sonew_perf.suite.processes import run_group
from sonew_perf.suite.torch_process import Answer
from sonew_perf.system import memory_bytes

ROUNDS: Final[Mapping[str, int]] = {"quick": 9, "normal": 9, "full": 15}
HOST_ROUNDS: Final = 3  # times as many: its samples are short
IMPORT_ROUNDS: Final = 7
SPARE: Final = 0.8  # share of the free memory that a group may take
NO_GPU: Final = "no usable GPU"  # the device's name where there is none
UNLIMITED: Final = Budget()
DONE, FAILED, SKIPPED = "done", "failed", "skipped"

Runner = Callable[[Group, int, float, float], Answer]
"""Runs a group in so many rounds, within so many seconds and until a `time.monotonic()` at the latest."""
Free = Callable[[str], int | None]
About = Mapping[str, Any]


class Told(Protocol):
    """Who is told how it goes."""

    def begin(self, group: Group) -> None:
        """A group begins."""

    def end(self, group: Group, entries: Sequence[Entry], seconds: float) -> None:
        """It ended, with these entries."""


def rounds_of(group: Group, effort: str, asked: int | None = None) -> int:
    """Rounds of a group: what was asked for, or what the effort is worth."""
    if asked is not None:
        return asked
    return IMPORT_ROUNDS if group.what == IMPORT else ROUNDS[effort] * (HOST_ROUNDS if group.what == HOST else 1)


def free_bytes(device: str) -> int | None:
    """Memory that a device has left, None where nobody says."""
    return int(torch.cuda.mem_get_info()[0]) if device == "cuda" else memory_bytes("MemAvailable")


def _jax_problem(device: str) -> str | None:
    if device == "cuda":
        return jax_gpu_problem()
    return NO_JAX if installed_version("jax") == "not installed" else None


def why_not(group: Group, unusable: Mapping[str, str], *, free: Free = free_bytes) -> str | None:
    """Why a group cannot run here, or None.

    Args:
        group: the group. unusable: reasons by device. free: bytes of memory that a device has left.
    """
    if group.device in unusable:
        return unusable[group.device]
    if group.framework == "jax" and (problem := _jax_problem(group.device)) is not None:
        return problem
    needed, left = needed_bytes(group), free(group.device)
    if left is not None and needed > SPARE * left:
        return f"not enough memory: about {needed / 2**30:.1f} GiB are needed, {left / 2**30:.1f} GiB are free"
    return None


def _described(device: str, unusable: Mapping[str, str]) -> About:
    if device in unusable:
        return {"device": NO_GPU, "type": device, "threads": torch.get_num_threads()}
    return describe(torch.device(device))


def _untimed(case: Entry, status: str, reason: str, machine: About) -> Entry:
    about = {"machine": dict(machine), "date": datetime.now(UTC).isoformat(timespec="seconds")}
    return {**case, **about, "status": status, "reason": reason[:MESSAGE_CHARACTERS]}


def _complete(described: About, machine: About) -> About:
    """A process's description of the machine with what only this one looks up: whose machine it is must not depend on who describes it."""
    known = described or machine
    return {**known, **({"flags": machine["flags"]} if known.get("type") == "cpu" and "flags" in machine else {})}


def entries_of(group: Group, answer: Answer, machine: About) -> list[Entry]:
    """An entry for every case of a group, timed or not.

    Args:
        group: the group. answer: what became of it. machine: for the entries that say none.
    """
    if isinstance(answer, Failure):
        return [_untimed(case, FAILED, f"{answer.kind}: {answer.message}", machine) for case in group.cases]
    timed = {(entry["case"], entry.get("kernel")): entry for entry in answer.entries}
    made = []
    for case in group.cases:
        entry = timed.get((case["case"], case["kernel"])) or timed.get((case["case"], None))
        if entry is None:
            made.append(_untimed(case, FAILED, answer.reasons.get(case["case"], "its process says nothing of it"), machine))
        else:
            made.append({**entry, **case, "machine": _complete(entry.get("machine", {}), machine)})
    return made


def _surroundings(when: str, device: str) -> Entry:
    """Load average and, on a GPU, the clock, as entries keep them."""
    load = {f"load_{when}": round(os.getloadavg()[0], 2)}
    return load if device == "cpu" else load | {f"sm_clock_{when}": describe_device(device)["clocks"].get("clocks.sm", "unknown")}


def _skipped(group: Group, reason: str, machine: About) -> list[Entry]:
    return [_untimed(case, SKIPPED, reason, machine) for case in group.cases]


def _attempt(runner: Runner, group: Group, rounds: int, machine: About, budget: Budget) -> list[Entry]:
    try:
        answer = runner(group, rounds, limit_s(group, rounds), budget.end)
        late = isinstance(answer, Failure) and answer.kind == "timeout"
        made = entries_of(group, answer, machine)
    except Exception as error:  # noqa: BLE001  # the other groups go on
        late = isinstance(error, DeviceBusyError)
        made = entries_of(group, Failure("error", in_one_line(error)), machine)
    return _skipped(group, budget.cut, machine) if late and budget.cut else made


def run_groups(
    groups: Sequence[Group],
    rounds: Callable[[Group], int],
    *,
    told: Told,
    unusable: Mapping[str, str] | None = None,
    runner: Runner = run_group,
    free: Free = free_bytes,
    budget: Budget = UNLIMITED,
) -> Iterator[list[Entry]]:
    """Run groups in order, and yield each one's entries as soon as it is done: what was yielded survives an interruption.

    Args:
        groups: what is run. rounds: of a group. told: who hears of it.
        unusable: why a device cannot be used, by its type: its groups are skipped.
        runner: runs a group within a time. free: bytes of memory that a device has left.
        budget: of the whole run. A group that does not fit into what is left of it, or is stopped by its end, is skipped.
    """
    reasons = unusable or {}
    for group in groups:
        told.begin(group)
        began, machine = time.monotonic(), _described(group.device, reasons)
        reason = why_not(group, reasons, free=free) or budget.refusal(estimate_s(group, rounds(group)))
        if reason is not None:
            entries = _skipped(group, reason, machine)
        else:
            before = _surroundings("before", group.device)
            made = _attempt(runner, group, rounds(group), machine, budget)
            around = before | _surroundings("after", group.device)
            entries = [entry | around for entry in made]
        told.end(group, entries, time.monotonic() - began)
        yield entries
