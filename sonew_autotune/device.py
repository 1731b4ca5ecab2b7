"""Finding the device that is to be tuned, and saying loudly when a GPU is there that cannot be used."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import ClassVar, Final

from sonew.config import Problem
from sonew.errors import InvalidConfigError, SonewError
from sonew.registry import BACKENDS
from sonew_autotune.settings import Exit

DEVICES: Final = ("auto", "cpu", "cuda")
UNKNOWN_CACHE: Final = 32 * 2**20  # where the system does not say


class NoDeviceError(SonewError, RuntimeError):
    """The device that was asked for cannot be used here: nothing can be judged on it."""

    exit_code: ClassVar[Exit] = Exit.NOT_JUDGED


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The device to tune.

    Attributes:
        type: "cpu" or "cuda" (torch's name for AMD GPUs as well).
        warning: a GPU that was seen but cannot be used, with the fix; None where all is well.
    """

    type: str
    warning: str | None = None


def gpus_seen(root: Path = Path("/")) -> list[str]:
    """Traces of a GPU on this machine, whatever torch thinks of it."""
    nodes = [f"/{node.relative_to(root)}" for pattern in ("dev/nvidia[0-9]*", "dev/kfd") for node in sorted(root.glob(pattern))]
    return nodes or _driver_lists()


def _driver_lists() -> list[str]:
    """GPUs that the driver's own tool lists, where the system shows no device nodes (WSL)."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False, timeout=20).stdout  # noqa: S603  # from PATH
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.split(" (UUID")[0] for line in listed.splitlines() if line.startswith("GPU ")]


def gpu_problem() -> str | None:
    """Why the GPU backend cannot run here, with the fix, or None."""
    module = next(row.module for row in BACKENDS if row.name == "triton" and row.framework == "torch")
    reason: str | None = import_module(module).rejects(Problem(device="cuda", band=1, total=1, median=1))
    return reason


def select_device(requested: str) -> str:
    """Leave one GPU of several visible for "cuda:<number>" and say "cuda"; other names as they are. Before CUDA is first used.

    Raises:
        InvalidConfigError: not a number, or CUDA is in use already.
        NoDeviceError: fewer GPUs are visible.
    """
    family, colon, number = requested.partition(":")
    if family != "cuda" or not colon:
        return requested
    if not number.isdecimal():
        msg = f"device={requested!r} is not cuda:<number>. Pass for example --device cuda:0."
        raise InvalidConfigError(msg)
    if import_module("torch").cuda.is_initialized():
        msg = f"device={requested!r} comes too late: CUDA is in use in this process. Set CUDA_VISIBLE_DEVICES={number} before it starts."
        raise InvalidConfigError(msg)
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if visible and int(number) >= len(visible):
        msg = f"device={requested!r} does not exist: CUDA_VISIBLE_DEVICES shows {len(visible)} GPUs. Pass --device cuda:{len(visible) - 1}."
        raise NoDeviceError(msg)
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[int(number)] if visible else number
    return family


def cache_bytes(device: str, root: Path = Path("/")) -> int:
    """Bytes of the device's last-level cache: the GPU's second level, or the largest that the system names for the first core."""
    if device == "cuda":
        torch = import_module("torch")
        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size)
    sizes = [file.read_text(encoding="utf-8").strip() for file in root.glob("sys/devices/system/cpu/cpu0/cache/index*/size")]
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    return max((int(size[:-1]) * units[size[-1]] for size in sizes if size[-1:] in units), default=UNKNOWN_CACHE)


def find_device(
    requested: str = "auto", *, seen: Callable[[], list[str]] = gpus_seen, problem: Callable[[], str | None] = gpu_problem
) -> Device:
    """The device to tune.

    Args:
        requested: "auto" takes a usable GPU, else the CPU.
        seen: traces of a GPU.
        problem: why the GPU cannot be used.

    Raises:
        InvalidConfigError: an unknown name.
        NoDeviceError: "cuda" was asked for and cannot be used.
    """
    if requested not in DEVICES:
        msg = f"device={requested!r} is not one of {list(DEVICES)}. Pass --device auto."
        raise InvalidConfigError(msg)
    if requested == "cpu":
        return Device(type="cpu")
    reason = problem()
    if reason is None:
        return Device(type="cuda")
    if requested == "cuda":
        msg = f"device='cuda' cannot be used: {reason}. Pass --device cpu to use the CPU."
        raise NoDeviceError(msg)
    traces = seen()
    warning = f"A GPU is present ({', '.join(traces)}) but cannot be used: {reason}. Using the CPU instead." if traces else None
    return Device(type="cpu", warning=warning)
