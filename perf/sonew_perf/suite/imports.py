"""How long importing takes: each module in a fresh interpreter, in turns with the framework that it needs."""

from __future__ import annotations

import json
import math
import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import torch

from sonew_autotune.measure import Samples
from sonew_autotune.trials.outcome import Failure
from sonew_perf.entries import digits, installed_version, timed_entry
from sonew_perf.machine import describe
from sonew_perf.process import Finished, run_process
from sonew_perf.records.files import Entry

MODULES: Final[Mapping[str, tuple[str, ...]]] = {"": ("sonew",), "torch": ("torch", "sonew.torch"), "jax": ("jax", "sonew.jax")}
"""By framework, itself first: what the module of ours takes beyond it is the price of ours."""
PROGRAM: Final = "import sys, time; start = time.perf_counter(); import {module}; print('\\n' + str(time.perf_counter() - start))"
LONGEST_S: Final = 60.0
ENVIRONMENT: Final = {"JAX_PLATFORMS": "cpu"}  # an import opens no device; this one keeps it so

Import = Callable[[str, float], float | Failure]


def import_once(module: str, limit: float) -> float | Failure:
    """Seconds that a fresh interpreter takes to import a module, its own start left out; it is stopped after `limit` seconds."""
    done: Finished = run_process([sys.executable, "-c", PROGRAM.format(module=module)], limit, ENVIRONMENT)
    if done.status is None:
        return Failure("timeout", f"import {module} had not ended after {max(limit, 0.0):.0f} s, the process was stopped")
    if done.status != 0:
        return Failure("error", done.tail[-1] if done.tail else f"import {module} ended with status {done.status}")
    return float(json.loads(done.tail[-1]))


def measure_imports(framework: str, rounds: int, seconds: float = math.inf, *, once: Import = import_once) -> list[Entry] | Failure:
    """Time the imports of a framework and of ours on it.

    Args:
        framework: a key of `MODULES`. rounds: samples per module; one more before them warms the system's file cache.
        seconds: for everything. once: seconds of one import, within a limit.

    Returns:
        One entry per module, its ratio to the framework's own import in the same rounds and what it takes beyond that ("beyond_ms", the
        median of the differences); or why there is none.
    """
    if framework and installed_version(framework) == "not installed":
        return Failure("error", f"{framework} is not installed: pip install 'sonew[{framework}]'")
    shared = {"load_before": round(os.getloadavg()[0], 2), "date": datetime.now(UTC).isoformat(timespec="seconds")}
    end = time.monotonic() + seconds
    modules, order = MODULES[framework], random.Random(0)  # noqa: S311  # an order, not a secret
    times: dict[str, list[float]] = {module: [] for module in modules}
    for number in range(rounds + 1):
        for module in order.sample(modules, len(modules)):
            took = once(module, min(LONGEST_S, end - time.monotonic()))
            if isinstance(took, Failure):
                return took
            if number:
                times[module].append(1000 * took)
    samples = {module: Samples(tuple(values)) for module, values in times.items()}
    baseline = [framework] if framework else []
    return [shared | _entry(module, samples, baseline) for module in modules]


def _entry(module: str, samples: Mapping[str, Samples], baseline: list[str]) -> dict[str, Any]:
    beyond = {}
    if baseline and module not in baseline:
        differences = np.subtract(samples[module].times_ms, samples[baseline[0]].times_ms)
        beyond = {"beyond_ms": digits(float(np.median(differences)))}
    timed = timed_entry(module, {}, samples, baseline)
    return {"machine": describe(torch.device("cpu")), **timed, **beyond}
