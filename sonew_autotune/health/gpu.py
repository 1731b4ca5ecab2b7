"""Checks of the GPU: seen, allowed, served by its driver, and left alone by heat and by other work."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from sonew_autotune.health.system import Answer, Line, System, TorchFacts

NVIDIA: Final = "0x10de"
AMD: Final = "0x1002"
GPU_CLASSES: Final = ("0x03", "0x12")  # of PCI devices: displays, processing accelerators
NVIDIA_NODES: Final = ("dev/nvidia[0-9]*", "dev/nvidiactl", "dev/nvidia-uvm")
AMD_NODES: Final = ("dev/kfd", "dev/dri/renderD*")
CUDA_VERSION: Final = re.compile(r"CUDA (?:UMD )?Version\s*:\s*(\d+)\.(\d+)")
STATE: Final = (
    *("name", "driver_version", "persistence_mode", "compute_mode", "clocks.sm", "clocks.max.sm"),
    *("utilization.gpu", "memory.used", "memory.total", "temperature.gpu"),
)
REASONS: Final = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")  # the second is the name in older drivers
APPLICATION: Final = ("clocks.applications.graphics", "clocks.default_applications.graphics")
SLOWED: Final[Mapping[int, str]] = {
    0x08: "the hardware slows down",
    0x20: "software holds the temperature down",
    0x40: "it is too hot",
    0x80: "the power supply brakes",
}
"""Bits of the clock reasons that make every time wrong."""
POWER_CAP: Final = 0x04
BUSY_PERCENT: Final = 10
BUSY_MEMORY: Final = 0.1  # of the GPU's


def _pci(system: System, vendor: str) -> list[str]:
    """GPUs of a vendor on the PCI bus, whether or not a driver serves them."""

    def says(file: Path, starts: str | tuple[str, ...]) -> bool:
        return file.is_file() and file.read_text(encoding="ascii").startswith(starts)

    devices = sorted(system.root.glob("sys/bus/pci/devices/*"))
    return [device.name for device in devices if says(device / "vendor", vendor) and says(device / "class", GPU_CLASSES)]


def _nodes(system: System, patterns: tuple[str, ...]) -> list[Path]:
    return [node for pattern in patterns for node in sorted(system.root.glob(pattern))]


def check_gpu(system: System) -> Iterator[Line]:
    """Whether there is a GPU and it can be used."""
    traces, reason = system.seen(), system.gpu_problem()
    silent = {"NVIDIA": _pci(system, NVIDIA), "AMD": _pci(system, AMD)}
    start = {"NVIDIA": "--gpus all", "AMD": "--device=/dev/kfd --device=/dev/dri"}
    nodes = {"NVIDIA": _nodes(system, NVIDIA_NODES[:1]), "AMD": _nodes(system, AMD_NODES[:1])}
    if reason is None:
        yield Line(level="ok", text=f"usable: {', '.join(system.torch().gpus) or 'a GPU'}")
    elif traces:
        yield Line(level="problem", text=f"a GPU is there ({', '.join(traces)}) but cannot be used", fix=reason)
    for vendor, devices in silent.items():
        if reason is not None and devices and not traces and not nodes[vendor]:
            text = f"there is a GPU of {vendor} on the PCI bus ({', '.join(devices)}) without a device file"
            fix = f"install its driver; in a container, start that with {start[vendor]}"
            # A server's own display chip is an AMD or NVIDIA device at times: no fault where nobody computes on it.
            yield Line(level="note", text=text, fix=f"if you mean to use it: {fix}")
    if reason is not None and not traces:
        yield Line(level="note", text="no GPU is used here: the CPU is tuned, and other GPUs are compiled for (run --target cuda:90)")


def check_permissions(system: System) -> Iterator[Line]:
    """Whether this user may open the GPU's device files."""
    nodes = _nodes(system, (*NVIDIA_NODES, *AMD_NODES))
    closed = [node for node in nodes if not system.may(node, os.R_OK | os.W_OK)]
    shown = [f"/{node.relative_to(system.root)}" for node in nodes]
    for node in closed:
        amd = node.name == "kfd" or node.name.startswith("renderD")
        fix = "sudo usermod -aG render,video $USER, then log in again" if amd else "sudo chmod a+rw the file, or ask who runs this machine"
        yield Line(level="problem", text=f"/{node.relative_to(system.root)} may not be read and written by this user", fix=fix)
    if nodes and not closed:
        yield Line(level="ok", text=f"may be opened: {', '.join(shown)}")
    if not nodes:
        yield Line(level="ok", text="there are no device files of a GPU to open")


def _ask(system: System, names: tuple[str, ...]) -> list[list[str]]:
    """The values of these fields, a row for each NVIDIA GPU; none where the driver does not tell."""
    answer = system.run(("nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"))
    lines = answer.output.splitlines() if answer.problem is None else []
    return [row for line in lines if len(row := [value.strip() for value in line.split(",")]) == len(names)]


def check_driver(system: System) -> Iterator[Line]:
    """The driver, and whether it serves what torch was built for."""
    nvidia, amd = bool(_nodes(system, NVIDIA_NODES[:1])), bool(_nodes(system, AMD_NODES[:1]))
    header = system.run(("nvidia-smi",))
    if header.problem is None:
        yield _nvidia_line(header, system.torch())
    elif nvidia and header.found:
        yield Line(level="problem", text=f"nvidia-smi {header.problem}", fix="reboot, or load the driver anew")
    elif nvidia:
        yield Line(
            level="note", text=f"nvidia-smi is {header.problem}: nothing is known of the driver", fix="put the driver's tools on PATH"
        )
    if amd:
        yield from _amd_lines(system)
    if header.problem is not None and not amd and not nvidia:
        yield Line(level="ok", text="no GPU driver answers, and no GPU is seen")


def _amd_lines(system: System) -> Iterator[Line]:
    answer = system.run(("rocm-smi", "--showdriverversion"))
    version = re.search(r"Driver version:\s*(\S+)", answer.output)
    if version is not None:
        yield Line(level="ok", text=f"AMD driver {version[1]}")
    else:
        yield Line(level="note", text=f"the AMD driver's version is unknown: rocm-smi {answer.problem or 'does not name it'}")
    if system.torch().hip is None:
        yield Line(level="problem", text="this torch is built without ROCm", fix="install torch's build for ROCm")


def _nvidia_line(header: Answer, facts: TorchFacts) -> Line:
    driver, match = re.search(r"Driver Version\s*:\s*([\d.]+)", header.output), CUDA_VERSION.search(header.output)
    if match is None:
        return Line(level="note", text="nvidia-smi does not say which CUDA the driver serves")
    serves = (int(match[1]), int(match[2]))
    text = f"driver {driver[1] if driver else 'of unknown version'} serves CUDA {serves[0]}.{serves[1]}, torch is built "
    if facts.cuda is None:
        return Line(level="problem", text=f"{text}without CUDA", fix="install torch's build for CUDA")
    text, built = f"{text}for CUDA {facts.cuda}", tuple(int(part) for part in facts.cuda.split(".")[:2])
    if serves[0] < built[0]:
        fix = f"update the driver to one that serves CUDA {built[0]}, or install torch's build for CUDA {serves[0]}"
        return Line(level="problem", text=text, fix=fix)
    if serves < built:
        return Line(
            level="note",
            text=f"{text}: the same major version, which works with few exceptions",
            fix="if something fails, update the driver",
        )
    return Line(level="ok", text=text)


def check_gpu_clocks(system: System) -> Iterator[Line]:
    """Clocks, heat and other work on NVIDIA GPUs; on AMD the performance level."""
    if _nodes(system, AMD_NODES[:1]):
        level = re.search(r"Performance Level:\s*(\S+)", system.run(("rocm-smi", "--showperflevel")).output)
        if level is not None:
            fix = "" if level[1] != "auto" else "for steadier times: sudo rocm-smi --setperflevel high"
            yield Line(level="note" if fix else "ok", text=f"performance level of the AMD GPU: {level[1]}", fix=fix)
    rows = _ask(system, STATE)
    if not rows:
        if _nodes(system, NVIDIA_NODES[:1]):
            yield Line(level="note", text="the NVIDIA GPU's clocks are unknown: nvidia-smi does not tell them")
        else:
            yield Line(level="ok", text="no NVIDIA GPU whose clocks would matter")
        return
    # Each of these fields is unknown to some drivers, which then refuse the whole question.
    reasons = next((given for name in REASONS if (given := _ask(system, (name,)))), [])
    application = _ask(system, APPLICATION)
    for row, reason, clocks in itertools.zip_longest(rows, reasons, application):
        facts = dict(zip(STATE, row, strict=True))
        yield from _state_lines(facts)
        if reason is not None:
            yield from _reason_lines(facts["name"], reason[0])
        if clocks is not None:
            yield from _application_lines(facts["name"], clocks)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _state_lines(facts: Mapping[str, str]) -> Iterator[Line]:
    name = facts["name"]
    now, most = facts["clocks.sm"], facts["clocks.max.sm"]
    fix = f"to hold them while timing: sudo nvidia-smi --lock-gpu-clocks={most}, afterwards --reset-gpu-clocks"
    yield Line(level="ok", text=f"{name}: {now} of at most {most} MHz, {facts['temperature.gpu']} degrees", fix=fix)
    if facts["compute_mode"] not in ("Default", "[N/A]"):
        text = f"{name}: compute mode {facts['compute_mode']}: the tuner's worker and its parent cannot both use the GPU"
        yield Line(level="problem", text=text, fix="sudo nvidia-smi --compute-mode=DEFAULT")
    if facts["persistence_mode"] == "Disabled":
        yield Line(
            level="note", text=f"{name}: persistence mode is off, so that it starts slowly", fix="sudo nvidia-smi --persistence-mode=1"
        )
    busy, used, total = (_number(facts[field]) for field in ("utilization.gpu", "memory.used", "memory.total"))
    if (busy or 0) > BUSY_PERCENT or (used is not None and total and used > BUSY_MEMORY * total):
        text = f"{name}: other work uses it ({facts['utilization.gpu']} % busy, {facts['memory.used']} of {facts['memory.total']} MiB)"
        yield Line(level="note", text=text, fix="times will be noisy: wait, or stop what runs (nvidia-smi lists it)")


def _reason_lines(name: str, mask: str) -> Iterator[Line]:
    bits = int(mask, 16) if re.fullmatch(r"0x[0-9a-fA-F]+", mask) else 0
    for bit, meaning in SLOWED.items():
        if bits & bit:
            yield Line(level="problem", text=f"{name}: clocks are held down: {meaning}", fix="cool it, or mend its power; tune afterwards")
    if bits & POWER_CAP:
        yield Line(level="note", text=f"{name}: clocks are held down by the power limit", fix="tune at the limit you train at")


def _application_lines(name: str, clocks: list[str]) -> Iterator[Line]:
    chosen, default = (_number(clock) for clock in clocks)
    if chosen is not None and default is not None and chosen != default:
        text = f"{name}: application clocks are set to {chosen:.0f} MHz, by default {default:.0f}"
        yield Line(level="note", text=text, fix="tune at the clocks you train at; sudo nvidia-smi --reset-applications-clocks")
