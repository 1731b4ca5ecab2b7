"""Checks of the rest of the machine: cores, clocks, load, memory, and the folders that are written to."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sonew_autotune.health.system import Folder, Line, System

BUSY: Final = 0.5  # of the cores: beyond it times are noisy
GIB: Final = 2**30
MIB: Final = 2**20
LEAST_MEMORY: Final = GIB  # below it the tuner itself may fail
SMALL_MEMORY: Final = 4 * GIB
LEAST_DISK: Final = 256 * MIB
SMALL_DISK: Final = 2 * GIB
WALK_SECONDS: Final = 2.0  # for the size of a folder
CPU: Final = "sys/devices/system/cpu"


def _read(path: Path) -> str | None:
    """Text of a small file of the system, None where it is not there or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _groups(system: System, controller: str) -> list[Path]:
    """Folders of this process's control groups, the innermost first; version 2, then version 1 of one controller."""
    base = system.root / "sys/fs/cgroup"
    folders: list[Path] = []
    for line in (_read(system.root / "proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        names, _, place = rest.partition(":")
        if number == "0" or controller in names.split(","):
            start = base if number == "0" else base / controller
            below = [part for part in place.split("/") if part and part != ".."]
            folders += [start.joinpath(*below[:depth]) for depth in range(len(below), 0, -1)]
    return [*folders, base, base / controller]


def cpu_quota(system: System) -> float | None:
    """Cores' worth of time that the control groups leave, None without a limit."""
    folders = _groups(system, "cpu")
    pairs = [
        *((_read(folder / "cpu.max") or "").partition(" ")[::2] for folder in folders),
        *((_read(folder / "cpu.cfs_quota_us") or "", _read(folder / "cpu.cfs_period_us") or "") for folder in folders),
    ]
    return min((int(time) / int(period) for time, period in pairs if time.isdecimal() and period.isdecimal() and int(period)), default=None)


def memory_left(system: System) -> int | None:
    """Bytes that may still be taken: of the machine's, and of the control groups' limits."""
    words = [line.split() for line in (_read(system.root / "proc/meminfo") or "").splitlines()]
    left = [int(line[1]) * 1024 for line in words if line[:1] == ["MemAvailable:"]]
    pairs = [
        (_read(folder / limit) or "", _read(folder / used) or "")
        for folder in _groups(system, "memory")
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
    ]
    left += [max(int(most) - int(taken), 0) for most, taken in pairs if most.isdecimal() and taken.isdecimal()]
    return min(left, default=None)


def check_cores(system: System) -> Iterator[Line]:
    """Threads beside the cores that they get."""
    threads, cores, quota = system.torch().threads, system.cores, cpu_quota(system)
    share = "no limit on its time" if quota is None else f"time for {quota:g}"
    text = f"torch uses {threads} threads; this process may use {cores} cores, {share}"
    allowed = cores if quota is None else max(1, min(cores, int(quota)))
    if threads > allowed:
        yield Line(level="problem", text=f"{text}: threads wait for one another", fix=f"export OMP_NUM_THREADS={allowed}")
    else:
        yield Line(level="ok", text=text)


def check_cpu_clocks(system: System) -> Iterator[Line]:
    """Governor and turbo, where the system tells."""
    governors = {text for file in system.root.glob(f"{CPU}/cpu[0-9]*/cpufreq/scaling_governor") if (text := _read(file))}
    no_turbo, boost = _read(system.root / CPU / "intel_pstate/no_turbo"), _read(system.root / CPU / "cpufreq/boost")
    if not governors:
        yield Line(level="note", text="the CPU's clocks are not told here, as in many virtual machines and containers")
    elif governors == {"performance"}:
        yield Line(level="ok", text="CPU governor: performance")
    else:
        fix = "for steadier times: sudo cpupower frequency-set --governor performance"
        yield Line(level="note", text=f"CPU governor: {', '.join(sorted(governors))}", fix=fix)
    if no_turbo == "0" or boost == "1":
        yield Line(level="ok", text="turbo is on: clocks depend on heat and on the cores in use")
    elif no_turbo is not None or boost is not None:
        yield Line(level="ok", text="turbo is off")


def check_load(system: System) -> Iterator[Line]:
    """Other work on the machine."""
    text = f"{system.load:.1f} processes ran at a time in the last minute, on {system.cores} cores"
    if system.load > BUSY * system.cores:
        yield Line(level="note", text=f"{text}: times will be noisy", fix="tune when the machine is quiet")
    else:
        yield Line(level="ok", text=text)


def check_memory(system: System) -> Iterator[Line]:
    """Memory that is left."""
    left = memory_left(system)
    if left is None:
        yield Line(level="note", text="the free memory is not told here")
        return
    text = f"{left / GIB:.1f} GiB of memory are free"
    if left < LEAST_MEMORY:
        yield Line(level="problem", text=f"{text}: trials may fail", fix="free memory, or raise the container's limit")
    elif left < SMALL_MEMORY:
        yield Line(level="note", text=f"{text}: the largest models cannot be tuned", fix="free memory, or tune smaller sizes (--size)")
    else:
        yield Line(level="ok", text=text)


def folder_size(folder: Path, *, seconds: float = WALK_SECONDS) -> tuple[int, bool]:
    """Bytes of the files below, and whether all were counted in that time."""
    size, limit = 0, time.monotonic() + seconds
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118  # a walk over many files
            except OSError:
                continue  # it went away meanwhile
        if time.monotonic() > limit:
            return size, False
    return size, True


def _existing(path: Path) -> Path:
    """The path or the nearest folder above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def _folder_line(system: System, folder: Folder) -> Line:
    place = _existing(folder.path.absolute())
    if not place.is_dir():
        text = f"{folder.name}: {place} is no folder"
        return Line(level="problem", text=text, fix=f"move that file away, or {folder.move}")
    if not system.may(place, os.W_OK | os.X_OK):
        return Line(level="problem", text=f"{folder.name}: {place} cannot be written", fix=f"make it writable, or {folder.move}")
    size, complete = folder_size(folder.path) if folder.path.exists() else (0, True)
    free = system.free(place)
    content = f"{'' if complete else 'more than '}{size / MIB:.1f} MiB" if folder.path.exists() else "not made yet"
    text = f"{folder.name}: {folder.path}, {content}, {free / GIB:.1f} GiB free"
    if free < LEAST_DISK:
        return Line(level="problem", text=f"{text}: nearly full", fix=f"free space there, or {folder.move}")
    return Line(
        level="note" if free < SMALL_DISK else "ok", text=text, fix=f"free space there, or {folder.move}" if free < SMALL_DISK else ""
    )


def check_folders(system: System) -> Iterator[Line]:
    """What is written to: allowed, how large, how much room."""
    for folder in system.folders:
        yield _folder_line(system, folder)
