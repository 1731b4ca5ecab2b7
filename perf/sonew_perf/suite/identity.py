"""What a run is told apart by: the sources it measured, the machine, and the command that does it again."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import torch

from sonew_kernels.spec import SPECS, source_hash
from sonew_perf.gpu.identity import describe_device
from sonew_perf.machine import describe
from sonew_perf.process import ROOT
from sonew_perf.records.machines import machine_of
from sonew_perf.records.model import Machine, Run
from sonew_perf.records.runs import new_run_id
from sonew_perf.sources import read_source
from sonew_perf.system import describe_host

PROGRAM: Final = "sonew-perf"
PLACES: Final = ("--output", "--store", "--markdown")  # options whose value is where something goes: a path of this machine
NOT_AGAIN: Final = ("--once", "--no-store")  # --once would find everything measured
SEED: Final = 0  # of the order inside the rounds: the default of `measure.interleave`


def describe_machine(device: str) -> Machine:
    """The machine with everything that is known of it: host, device, versions and the kernels' source hashes.

    Args:
        device: "cpu" or "cuda", whichever the run is about.
    """
    described: dict[str, object] = {**describe(torch.device(device)), **describe_host()}
    if device == "cuda":
        found = describe_device(device)
        clocks = {f"gpu_{name.replace('.', '_')}": value for name, value in found["clocks"].items()}
        described |= {"gpu_capability": found["capability"], "gpu_memory_gib": round(found["memory_bytes"] / 2**30, 1)}
        described |= {"driver": found["driver"], "cuda": torch.version.cuda or torch.version.hip or "none", **clocks}
    kernels = {f"kernel_{name}": source_hash(name) for name in SPECS}
    return machine_of({**described, **kernels, "seed": SEED})


def repeat_command(arguments: Sequence[str]) -> str:
    """The line that does the same again, for a shell: without what says where results go, and without --once."""
    kept, rest = [PROGRAM], iter(arguments)
    for argument in rest:
        if argument in PLACES:
            next(rest, None)
        elif argument not in NOT_AGAIN and argument.partition("=")[0] not in PLACES:
            kept.append(argument)
    return shlex.join(kept)


def new_run(machine: Machine, *, arguments: Sequence[str], label: str, now: datetime | None = None, root: Path = ROOT) -> Run:
    """A run that begins now: everything but how long it takes."""
    began, source = now or datetime.now(UTC), read_source(root)
    return Run(
        id=new_run_id(began),
        date=began.isoformat(timespec="seconds"),
        machine=machine,
        label=label,
        command=repeat_command(arguments),
        commit=source.commit,
        commit_date=source.commit_date,
        branch=source.branch,
        modified=source.modified,
        diff=source.diff,
        load=round(os.getloadavg()[0], 2),
    )
