"""What a run's results hold for: the device, the versions and the sources. Finished work is reused only under the same ones."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

import sonew
import sonew_autotune
import sonew_kernels
import sonew_perf
from sonew.backends.native_build import cpu_model
from sonew_kernels.spec import SPECS, source_hash
from sonew_perf.entries import installed_version
from sonew_perf.process import ROOT

PACKAGES: Final = (sonew, sonew_autotune, sonew_kernels, sonew_perf)
SOURCES: Final = ("*.py", "*.cpp", "*.h")
TESTS: Final = ("tests/kernels/gpu", "tests/jax/gpu")
CLOCKS: Final = ("driver_version", "clocks.max.sm", "clocks.max.mem", "clocks.sm", "clocks.mem", "power.limit", "temperature.gpu")
UNKNOWN: Final = "unknown"


def _output(command: list[str]) -> str | None:
    """What a program prints, None where it fails or is not here."""
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=True, timeout=20)  # noqa: S603  # from PATH
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _driver(index: int) -> dict[str, str]:
    """Driver, clocks and power limit as the driver's own tool reads them; unknown where there is none."""
    query = ["nvidia-smi", f"--query-gpu={','.join(CLOCKS)}", "--format=csv,noheader", "-i"]
    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
    printed = _output([*query, f"GPU-{uuid}" if uuid is not None else str(index)])
    values = printed.split(", ") if printed else []
    return dict(zip(CLOCKS, values, strict=True)) if len(values) == len(CLOCKS) else dict.fromkeys(CLOCKS, UNKNOWN)


def describe_device(kind: str) -> dict[str, Any]:
    """Name, capability, memory in bytes, and for a GPU driver and clocks."""
    if kind == "cpu":
        return {"type": kind, "name": cpu_model(), "capability": platform.machine(), "memory_bytes": None, "driver": "none", "clocks": {}}
    index = torch.cuda.current_device()
    properties = torch.cuda.get_device_properties(index)
    clocks = _driver(index)
    return {
        "type": kind,
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
        "driver": clocks.pop("driver_version"),
        "clocks": clocks,
    }


def describe_versions() -> dict[str, str]:
    """Versions of everything that a time depends on."""
    return {
        "sonew": sonew.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or torch.version.hip or "none",
        **{name: installed_version(name) for name in ("triton", "jax", "jaxlib", "jax-triton", "optax")},
    }


def describe_sources() -> dict[str, Any]:
    """The commit, whether the tree differs from it, a hash of every source file, and the kernels' own hashes."""
    folders = [Path(package.__file__ or "").resolve().parent for package in PACKAGES] + [ROOT / tests for tests in TESTS]
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(path for pattern in SOURCES for path in folder.rglob(pattern)):
            digest.update(f"{folder.name}/{file.relative_to(folder)}".encode())
            digest.update(file.read_bytes())
    changes = _output(["git", "-C", str(ROOT), "status", "--porcelain"])
    return {
        "commit": _output(["git", "-C", str(ROOT), "rev-parse", "HEAD"]) or UNKNOWN,
        "modified": None if changes is None else bool(changes),
        "sources": digest.hexdigest()[:16],
        "kernels": {name: source_hash(name) for name in SPECS},
    }


def key_of(device: Mapping[str, Any], versions: Mapping[str, str], sources: Mapping[str, Any]) -> str:
    """Results under equal keys belong together: the same device and driver, versions and source files."""
    fixed = [device["name"], device["capability"], device["driver"], dict(versions), sources["sources"], dict(sources["kernels"])]
    return hashlib.sha256(json.dumps(fixed).encode()).hexdigest()[:16]
