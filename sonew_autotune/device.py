"""Finding the device that is to be tuned, and saying loudly when a GPU is there that cannot be used."""

from __future__ import annotations

import itertools
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable
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


def _selector() -> str:
    """The environment variable by which this torch chooses among GPUs."""
    return "HIP_VISIBLE_DEVICES" if import_module("torch").version.hip is not None else "CUDA_VISIBLE_DEVICES"


def _visible(variable: str) -> tuple[str, list[str] | None]:
    """(variable that says so, names of the visible GPUs): None where none of the variables says, no name where it hides them all.

    On AMD, CUDA_VISIBLE_DEVICES counts where HIP_VISIBLE_DEVICES is not set, and both number what ROCR_VISIBLE_DEVICES leaves.
    As for the drivers, the list ends at the first name that is none (empty, or a negative number).
    """
    hip = variable != "CUDA_VISIBLE_DEVICES"
    for name in (variable, "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES") if hip else (variable,):
        value = os.environ.get(name)
        if value is not None:
            listed = [part.strip() for part in value.split(",")]
            shown = list(itertools.takewhile(lambda part: part and not part.startswith("-"), listed))
            return name, [str(number) for number in range(len(shown))] if name.startswith("ROCR") else shown
    return variable, None


@dataclass(slots=True)
class _Selection:
    """The choice of this process: the number, and what the variable was set to for it."""

    number: int | None = None
    value: str = ""


_SELECTED: Final = _Selection()


def _was_selected(number: int, variable: str) -> bool:
    """Whether this GPU was chosen before.

    Raises:
        InvalidConfigError: another one was.
    """
    if _SELECTED.number is None or os.environ.get(variable) != _SELECTED.value:
        return False
    if number != _SELECTED.number:
        msg = f"device='cuda:{number}' comes after cuda:{_SELECTED.number} was chosen: a process has one GPU. Use a process for each."
        raise InvalidConfigError(msg)
    return True


def select_device(requested: str) -> str:
    """Leave one GPU of several visible for "cuda:<number>" and say "cuda"; other names as they are. Before CUDA is first used.

    A process chooses once; to ask for the same GPU again is fine.

    Raises:
        InvalidConfigError: not a number, another GPU was chosen before, or CUDA is in use already.
        NoDeviceError: the GPUs are hidden, or there is none of that number.
    """
    family, colon, digits = requested.partition(":")
    if family != "cuda" or not colon:
        return requested
    if not digits.isdecimal():
        msg = f"device={requested!r} is not cuda:<number>. Pass for example --device cuda:0."
        raise InvalidConfigError(msg)
    number, variable, cuda = int(digits), _selector(), import_module("torch").cuda
    if _was_selected(number, variable):
        return family
    says, visible = _visible(variable)
    if visible is not None and number >= len(visible):
        shown = f"shows {len(visible)} GPUs. Pass --device cuda:{len(visible) - 1}." if visible else "hides every GPU. Unset it."
        msg = f"device={requested!r} does not exist: {says}={os.environ[says]!r} {shown}"
        raise NoDeviceError(msg)
    if cuda.is_initialized():
        msg = f"device={requested!r} comes too late: CUDA is in use in this process. Set {variable}={number} before it starts."
        raise InvalidConfigError(msg)
    _choose(number, variable, str(number) if visible is None else visible[number])
    return family


def _choose(number: int, variable: str, value: str) -> None:
    """Set the variable, and only then count: whatever the count starts, it starts with the one GPU.

    Raises:
        NoDeviceError: there is none of that number; the variable is as it was.
    """
    before = os.environ.get(variable)
    os.environ[variable] = value
    if import_module("torch").cuda.device_count() > 0:
        _SELECTED.number, _SELECTED.value = number, value
        return
    reason = gpu_problem()
    if before is None:
        del os.environ[variable]
    else:
        os.environ[variable] = before
    msg = f"device='cuda:{number}' cannot be used: with {variable}={value} torch finds no GPU{f' ({reason})' if reason else ''}. "
    raise NoDeviceError(msg + "Pass a number that nvidia-smi -L or rocm-smi lists, or --device cpu.")


def device_name(device: str) -> str:
    """What tells this device from every other one, on this machine and elsewhere: for a lock that must be the device's own."""
    host = platform.node() or "localhost"
    if device != "cuda":
        return f"{host}-{device}"
    torch = import_module("torch")
    number = torch.cuda.current_device()
    uuid = getattr(torch.cuda.get_device_properties(number), "uuid", None)
    if uuid is not None:
        return f"{host}-{uuid}"
    _, visible = _visible(_selector())
    return f"{host}-{device}-{visible[number] if visible else number}"


def cache_bytes(device: str, root: Path = Path("/"), cores: Iterable[int] | None = None) -> int:
    """Bytes of cache that a step's data may survive in.

    A GPU: its second level, as torch tells it (memory-side caches, as some AMD GPUs have, are not in it). A CPU: the last-level
    caches of the cores that may be used, each counted once however many of them share it.

    Args:
        device: its type.
        root: of the system's files. cores: that may be used; those of this process where None.
    """
    if device == "cuda":
        torch = import_module("torch")
        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size)
    caches: dict[str, int] = {}
    for core in _usable_cores() if cores is None else cores:
        found = [_cache(folder, core) for folder in root.glob(f"sys/devices/system/cpu/cpu{core}/cache/index*")]
        if found:
            _, shared, size = max(found)
            caches[shared] = size
    return sum(caches.values()) or UNKNOWN_CACHE


def _usable_cores() -> Iterable[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)


def _cache(folder: Path, core: int) -> tuple[int, str, int]:
    """(level, the cores that share it, bytes) of a core's cache; what the system does not say is nothing."""

    def read(name: str) -> str:
        try:
            return (folder / name).read_text(encoding="utf-8").strip()
        except OSError:
            return ""

    size = read("size")
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    known = size[:-1].isdecimal() and size[-1:] in units
    level = read("level")
    return int(level) if level.isdecimal() else 0, read("shared_cpu_list") or str(core), int(size[:-1]) * units[size[-1]] if known else 0


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
