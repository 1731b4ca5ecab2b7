"""Asks a process that times JAX: torch is loaded here, and not there."""

from __future__ import annotations

import json
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Final

from sonew_autotune.trials.outcome import Failure
from sonew_perf.entries import installed_version
from sonew_perf.jax.request import JaxTiming
from sonew_perf.process import Finished, run_process

ENVIRONMENT: Final = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # else the first process takes most of the device's memory
ONLY_CPU: Final = {"JAX_PLATFORMS": "cpu"}
NO_JAX: Final = "JAX is not installed: pip install 'sonew[jax]'"
LOOKING_S: Final = 60.0
LOOK: Final = "import jax; jax.devices('gpu')"


def ask(timing: JaxTiming, seconds: float) -> dict[str, Any] | Failure:
    """What `timing.time_case` says, in a process of its own."""
    if installed_version("jax") == "not installed":
        return Failure("error", NO_JAX)
    environment = ENVIRONMENT | (ONLY_CPU if timing.device == "cpu" else {})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        done = run_process([sys.executable, "-m", "sonew_perf.jax.timing", timing.to_json(), str(path)], seconds, environment)
        if done.status is None:
            return Failure("timeout", f"no result after {seconds:.0f} s, the process was stopped")
        if done.status != 0:
            return Failure("error", _said(done))
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return result


def _said(done: Finished) -> str:
    return done.tail[-1] if done.tail else f"the process ended with status {done.status}"


@cache
def jax_gpu_problem() -> str | None:
    """Why JAX cannot use a GPU here, with the fix, in one line, or None."""
    if installed_version("jax") == "not installed":
        return NO_JAX
    done = run_process([sys.executable, "-c", LOOK], LOOKING_S, ENVIRONMENT)
    if done.status == 0:
        return None
    cuda = 12 if installed_version("jax-cuda13-plugin") == "not installed" else 13
    said = f"no answer after {LOOKING_S:.0f} s" if done.status is None else _said(done)
    return f"JAX sees no GPU ({said}); for NVIDIA's: pip install 'jax[cuda{cuda}]=={installed_version('jax')}'"
