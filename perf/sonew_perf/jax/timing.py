"""Times the methods of one case against each other: what fails is a result, the others go on.

Run as `python -m sonew_perf.jax.timing REQUEST RESULT`: the request as JSON text, the result's file, written as JSON.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import jax

import sonew
from sonew.backends.native_build import cpu_model
from sonew_autotune.measure import Samples, Work, interleave
from sonew_perf.entries import in_one_line, installed_version, timed_entry
from sonew_perf.jax.peers import Stepped, describe_plan, leaves, prepare
from sonew_perf.jax.request import ADAMW, JaxTiming, Method
from sonew_perf.system import cpu_flags

PLATFORMS: Final = {"cuda": "gpu", "cpu": "cpu"}


def clock(work: Work, repetitions: int) -> float:
    """Seconds from the first call until the results of the last one are there."""
    last: object = None
    start = time.perf_counter()
    for _ in range(repetitions):
        last = work()
    jax.block_until_ready(last)
    return time.perf_counter() - start


def describe(device: jax.Device) -> dict[str, str | int]:
    """Device, threads and versions."""
    on_cpu = device.platform == "cpu"
    return {
        "device": cpu_model() if on_cpu else device.device_kind,
        "type": device.platform,
        "threads": len(os.sched_getaffinity(0)),
        **({"flags": cpu_flags()} if on_cpu else {}),
        "python": platform.python_version(),
        "sonew": sonew.__version__,
        **{name: installed_version(name) for name in ("jax", "jaxlib", "optax", "jax-triton", "triton")},
    }


def time_case(timing: JaxTiming) -> dict[str, Any]:
    """Time a case.

    Returns:
        workload, machine, date, load_before, baseline (what multiples are of), `entries` (one per method that ran: `entries.timed_entry`,
        state_bytes, peak_bytes, plans), `failures` (case to reason) and device_peak_bytes (the whole process's, None on a CPU).
    """
    device, load = jax.devices(PLATFORMS[timing.device])[0], round(os.getloadavg()[0], 2)
    grads = leaves(timing.workload, device, 1)
    ready: dict[Method, Stepped] = {}
    failures: dict[str, str] = {}
    for method in timing.methods:
        try:
            ready[method] = prepare(method, timing.workload, grads, device)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this method's result
            failures[method.case] = in_one_line(error)
    works = {method.case: stepped for method, stepped in ready.items()}
    samples = interleave(works, rounds=timing.rounds, clock=clock) if works else {}
    return {
        "workload": timing.workload.described(),
        "machine": describe(device),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_before": load,
        "baseline": ADAMW,
        "entries": [_entry(method, stepped, samples, timing) for method, stepped in ready.items()],
        "failures": failures,
        "device_peak_bytes": (device.memory_stats() or {}).get("peak_bytes_in_use"),
    }


def _entry(method: Method, stepped: Stepped, samples: Mapping[str, Samples], timing: JaxTiming) -> dict[str, Any]:
    settings: dict[str, str | int] = {"family": method.family}
    if method.family != ADAMW:
        settings |= {"band": method.band, "backend": method.backend}
    return timed_entry(method.case, settings, samples, [ADAMW] if ADAMW in samples else []) | {
        "state_bytes": stepped.state_bytes,
        "peak_bytes": stepped.peak_bytes,
        "plans": describe_plan(method, timing),
        "copy_share": None,
    }


def main(request: str, result: str) -> None:
    """Answer one request."""
    Path(result).write_text(json.dumps(time_case(JaxTiming.from_json(request))), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
