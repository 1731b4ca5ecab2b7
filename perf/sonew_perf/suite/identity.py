"""What a run is told apart by: the sources it measured, the machine, and the command that does it again."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
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
from sonew_perf.system import describe_host

PROGRAM: Final = "sonew-perf"
GIT_TIMEOUT_S: Final = 20.0
LARGEST_HASHED: Final = 2**20  # of a new file more than its name and size counts only up to here
SEED: Final = 0  # of the order inside the rounds: the default of `measure.interleave`


@dataclass(frozen=True, slots=True)
class Source:
    """The checkout that was measured.

    Attributes:
        commit: 40 hex digits. commit_date: ISO 8601. branch: empty where none is checked out.
        modified: whether the tree differs from the commit, None where nobody can tell.
        diff: short hash of the difference, empty where there is none. All are empty where there is no checkout or no git.
    """

    commit: str = ""
    commit_date: str = ""
    branch: str = ""
    modified: bool | None = None
    diff: str = ""


def _git(root: Path, *arguments: str) -> bytes | None:
    """What git prints, None where it fails or is not here."""
    program = shutil.which("git")
    if program is None:
        return None
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {"GIT_OPTIONAL_LOCKS": "0"}
    command = [program, "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=GIT_TIMEOUT_S, env=environment)  # noqa: S603  # from PATH
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _text(printed: bytes | None) -> str:
    return "" if printed is None else printed.decode(errors="replace").strip()


def _difference(root: Path) -> str | None:
    """Short hash of what differs from the commit, new files by name and content; empty where nothing does, None where git fails."""
    changed = _git(root, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv", "--no-color")
    listed = _git(root, "ls-files", "--others", "--exclude-standard", "-z")
    if changed is None or listed is None:
        return None
    new = sorted(name for name in listed.split(b"\0") if name)
    if not changed and not new:
        return ""
    digest = hashlib.sha256(changed)
    for name in new:
        path = root / os.fsdecode(name)
        digest.update(b"\0" + name)
        if path.is_file() and not path.is_symlink():
            digest.update(str(path.stat().st_size).encode())
            with path.open("rb") as file:
                digest.update(file.read(LARGEST_HASHED))
    return digest.hexdigest()[:12]


def read_source(root: Path = ROOT) -> Source:
    """What git says of a checkout; nothing where `root` is not the top of one, as an installed package is not."""
    top = _text(_git(root, "rev-parse", "--show-toplevel"))
    if not top or Path(top).resolve() != root.resolve():
        return Source()
    difference = _difference(root)
    return Source(
        commit=_text(_git(root, "rev-parse", "HEAD")),
        commit_date=_text(_git(root, "show", "-s", "--format=%cI", "HEAD")),
        branch=_text(_git(root, "symbolic-ref", "--short", "-q", "HEAD")),
        modified=None if difference is None else bool(difference),
        diff=difference or "",
    )


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
    """The line that does the same again, for a shell."""
    return shlex.join([PROGRAM, *arguments])


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
