"""A made-up machine in good order, on which a test plants what it wants found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sonew_autotune.health.system import Answer, Check, Folder, StoredFacts, System, TorchFacts

REQUIRES = (
    "numpy>=2",
    "torch>=2.11; extra == 'torch'",
    "triton>=3.6; (platform_system == 'Linux') and extra == 'torch'",
    "optuna>=5; extra == 'tune'",
    "sonew[torch]; extra == 'tune'",
    "jax<0.12,>=0.10.2; extra == 'jax'",
    "pytest>=9; extra == 'dev'",
)
VERSIONS = {"numpy": "2.4.6", "torch": "2.13.0+cpu", "triton": "3.7.1", "optuna": "5.0.0", "sonew": "0.1.0", "jax": "0.11.2"}
NVIDIA_SMI = "| NVIDIA-SMI 580.65.06    Driver Version: 580.65.06    CUDA Version: 13.0 |"
STATE = "NVIDIA H100 80GB HBM3, 580.65.06, Enabled, Default, 1980, 1980, 0, 4, 81559, 33"


class Tools:
    """Answers of tools by their first argument, or by the fields that nvidia-smi is asked for."""

    def __init__(self, answers: Mapping[str, str | Answer]) -> None:
        self.answers = answers

    def __call__(self, command: Sequence[str]) -> Answer:
        """What the tool says; one that is not named is not installed."""
        wanted = " ".join(command)
        for start, answer in self.answers.items():
            if wanted == start or (start.endswith("*") and wanted.startswith(start[:-1])):
                return Answer(output=answer) if isinstance(answer, str) else answer
        known = any(start.split(" ")[0] == command[0] for start in self.answers)
        return Answer(problem="failed with status 2: not a valid field") if known else Answer(found=False, problem="not installed")


GPU_TOOLS: Mapping[str, str | Answer] = {
    "nvidia-smi": NVIDIA_SMI,
    "nvidia-smi --query-gpu=name*": STATE,
    "nvidia-smi --query-gpu=clocks_event_reasons.active*": "0x0000000000000001",
    "nvidia-smi --query-gpu=clocks.applications*": "1980, 1980",
}


def plant(root: Path, files: Mapping[str, str]) -> Path:
    """Files below a root."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return root


def machine(root: Path, **changes: Any) -> System:
    """A CPU machine in good order below `root`, with some of its facts changed."""
    folder = root / "data"
    folder.mkdir(exist_ok=True, parents=True)
    plant(
        root,
        {
            "proc/meminfo": "MemTotal: 33554432 kB\nMemAvailable: 16777216 kB\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
        },
    )
    facts: dict[str, Any] = {
        "root": root,
        "python": "3.11.7",
        "requires_python": "<3.13,>=3.11",
        "environment": {"PATH": "bin", "HOME": "me"},
        "cores": 8,
        "load": 0.1,
        "requires": lambda name: REQUIRES if name == "sonew" else [],
        "version": VERSIONS.get,
        "run": Tools({}),
        "may": os.access,
        "free": lambda _folder: 100 * 2**30,
        "torch": lambda: TorchFacts(cuda=None, hip=None, threads=8, gpus=()),
        "compiler": lambda: "g++ 12",
        "cpu_backend": lambda: None,
        "gpu_problem": lambda: "torch sees no GPU",
        "seen": list,
        "folders": (Folder(name="store", path=folder, move="set SONEW_STORE"),),
        "stored": lambda: StoredFacts(entries=(), problems=()),
        "targets": ("cuda:90", "hip:gfx942"),
    }
    return System(**{**facts, **changes})


def gpu_machine(root: Path, tools: Mapping[str, str | Answer] | None = None, **changes: Any) -> System:
    """The same with an H100 in good order."""
    plant(root, {"dev/nvidia0": "", "dev/nvidiactl": "", "sys/bus/pci/devices/0000:0a/vendor": "0x10de\n"})
    plant(root, {"sys/bus/pci/devices/0000:0a/class": "0x030200\n"})
    facts: dict[str, Any] = {
        "run": Tools({**GPU_TOOLS, **(tools or {})}),
        "torch": lambda: TorchFacts(cuda="13.0", hip=None, threads=8, gpus=("NVIDIA H100 80GB HBM3",)),
        "gpu_problem": lambda: None,
        "seen": lambda: ["/dev/nvidia0"],
    }
    return machine(root, **{**facts, **changes})


def levels(check: Check, system: System) -> list[str]:
    """The levels of a check's lines."""
    return [line.level for line in check(system)]


def found(check: Check, system: System, level: str) -> str:
    """Text and fix of the one line of that level."""
    (line,) = [line for line in check(system) if line.level == level]
    return f"{line.text} | {line.fix}"


def raising(error: Exception) -> Callable[..., Any]:
    """A fact that cannot be told."""

    def fact(*_arguments: object) -> Iterable[object]:
        raise error

    return fact
