"""What a number was measured on and with: device, threads, versions and plans, as a record quotes them."""

from __future__ import annotations

import platform

import torch

import sonew
from sonew.backends.native_build import cpu_model
from sonew.torch import SONew
from sonew_perf.entries import installed_version, plan_entry
from sonew_perf.system import cpu_flags


def describe(device: torch.device) -> dict[str, str | int]:
    """Device, threads, a CPU's instruction sets, and versions."""
    on_cpu = device.type == "cpu"
    return {
        "device": cpu_model() if on_cpu else torch.cuda.get_device_name(device),
        "type": device.type,
        "threads": torch.get_num_threads(),
        **({"flags": cpu_flags()} if on_cpu else {}),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": installed_version("triton"),
        "sonew": sonew.__version__,
    }


def describe_plans(optimizer: object) -> list[dict[str, object]]:
    """What stepped the launch groups of a `SONew`, and why (`entries.plan_entry`)."""
    plans = optimizer.plans() if isinstance(optimizer, SONew) else []
    return [plan_entry(plan) for plan in plans]


def headline(machine: dict[str, str | int]) -> str:
    """The description in one line, for titles."""
    versions = ", ".join(f"{name} {machine[name]}" for name in ("sonew", "torch", "triton", "python"))
    return f"{machine['device']} ({machine['type']}), {machine['threads']} CPU threads, {versions}"
