"""What the operating system says of the machine. No framework is loaded here: the processes of both ask."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Final

from sonew_perf.entries import installed_version

FLAGS: Final = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")
"""Instruction sets that kernels could use. Which of them a CPU has is part of a machine's identity in the store: add at the end only."""
PACKAGES: Final = ("numpy", "jax", "jaxlib", "jax-triton", "optax")
UNKNOWN: Final = "unknown"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _processors(cpuinfo: str) -> list[dict[str, str]]:
    """The processors that the system lists, each with its fields."""
    blocks = (block.splitlines() for block in cpuinfo.split("\n\n"))
    return [{name.strip(): value.strip() for name, _, value in (line.partition(":") for line in block)} for block in blocks if block]


def memory_bytes(name: str, root: Path = Path("/")) -> int | None:
    """What the system says of its memory: "MemTotal", or "MemAvailable" for what a new process may take; None where it does not say."""
    for line in _read(root / "proc/meminfo").splitlines():
        key, _, value = line.partition(":")
        if key == name and value.split()[0].isdecimal():
            return 1024 * int(value.split()[0])
    return None


def _flags(processors: list[dict[str, str]]) -> set[str]:
    return set((processors[0].get("flags") or processors[0].get("Features", "")).split()) if processors else set()


def cpu_flags(root: Path = Path("/")) -> str:
    """The CPU's instruction sets of `FLAGS`, or "unknown"."""
    found = _flags(_processors(_read(root / "proc/cpuinfo")))
    return " ".join(flag for flag in FLAGS if flag in found) or UNKNOWN


def describe_host(root: Path = Path("/")) -> dict[str, str | int | float | bool]:
    """What else of the host decides speed: cores, instruction sets, memory, kernel, governor, whether it is a virtual machine, versions.

    Args:
        root: of the system's files. What they do not say is left out, or "unknown".
    """
    processors = _processors(_read(root / "proc/cpuinfo"))
    physical = {(cpu["physical id"], cpu["core id"]) for cpu in processors if "physical id" in cpu and "core id" in cpu}
    total = memory_bytes("MemTotal", root)
    return {
        "logical_cores": len(processors) or os.cpu_count() or 0,
        **({"physical_cores": len(physical)} if physical else {}),
        "flags": cpu_flags(root),
        **({"memory_gib": round(total / 2**30, 1)} if total is not None else {}),
        "kernel": platform.release(),
        "governor": _read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or UNKNOWN,
        "virtual": "hypervisor" in _flags(processors),
        **{package: installed_version(package) for package in PACKAGES},
    }
