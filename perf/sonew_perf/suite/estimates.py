"""How long a group takes and how much memory it needs, roughly: for `--list`, time limits and what is not begun."""

from __future__ import annotations

from typing import Final

from sonew_autotune.measure import CALIBRATING_CALLS, TARGET_SAMPLE_S
from sonew_kernels.spec import STORAGE_BYTES
from sonew_perf.steps import host
from sonew_perf.suite.groups import HOST, IMPORT, PHASE, STEP, TUNER, Group
from sonew_perf.suite.imports import MODULES
from sonew_perf.suite.tuning import BUDGET_S

START_S: Final = {"torch": 3.5, "jax": 2.0, "": 0.0}  # of a process that loads the framework
CHECK_S: Final = 0.4  # of a case of SONew
COMPILE_S: Final = 1.2  # of a step by XLA, for each off-diagonal and one more, checked and timed
COMPILE_LEAF_S: Final = 0.4  # more for each leaf
NS_PER_ELEMENT: Final = {"cpu": 1.0, "cuda": 0.03}  # of a step at band 0, on 2 cores or a large GPU
XLA_FACTOR: Final = 12.0
REFERENCE_FACTOR: Final = 100.0
IMPORT_S: Final = {"sonew": 0.1, "torch": 2.0, "sonew.torch": 2.2, "jax": 1.0, "sonew.jax": 1.3}
SLACK: Final = 10.0  # a group that takes longer than so many times its estimate is stopped
LEAST_LIMIT_S: Final = 180.0


def _step_seconds(group: Group) -> list[float]:
    """Seconds of one call of every case of a group of steps or phases."""
    elements = 0 if group.workload is None else group.workload.elements
    unit = 1e-9 * NS_PER_ELEMENT[group.device] * elements
    calls = []
    for case in group.cases:
        band = case["settings"].get("band", 0)
        factor = 1.0 + band
        if case["settings"].get("backend") == "reference":
            factor *= XLA_FACTOR if group.framework == "jax" else REFERENCE_FACTOR
        calls.append(unit * factor)
    return calls


def estimate_s(group: Group, rounds: int) -> float:
    """Seconds that a group takes, its process's start included."""
    start = START_S[group.framework]
    if group.what == IMPORT:
        return (rounds + 1) * sum(IMPORT_S[module] for module in MODULES[group.framework])
    if group.what == TUNER:
        return 2 * start + BUDGET_S
    if group.what == HOST:
        return start + 1.0 + len(group.cases) * rounds * 2 * host.SAMPLE_S
    if group.framework == "jax" and group.workload is not None:
        compiling = (COMPILE_S + COMPILE_LEAF_S * len(group.workload.shapes)) * sum(method.band + 1 for method in group.methods[1:])
    else:
        compiling = CHECK_S * len(group.bands)
    timed = sum(CALIBRATING_CALLS * call + rounds * max(call, TARGET_SAMPLE_S) for call in _step_seconds(group))
    return start + compiling + 1.5 * timed


def limit_s(group: Group, rounds: int) -> float:
    """Seconds after which a group is stopped: a hang, or a machine that is far slower than thought."""
    return max(LEAST_LIMIT_S, SLACK * estimate_s(group, rounds))


def needed_bytes(group: Group) -> int:
    """Memory that a group takes at once: parameters, gradients and state of every case."""
    if group.workload is None or group.what not in (STEP, PHASE):
        return 0
    word = STORAGE_BYTES["float32"]
    per_element = 0
    for case in group.cases:
        settings = case["settings"]
        if case["kernel"] not in (STEP, "direction"):
            continue  # the phases of a case share its tensors
        if "band" not in settings:
            per_element += 2 * word if settings.get("roof") else 4 * word
            continue
        state = STORAGE_BYTES[group.state]
        scratch = (settings["band"] + 2) * word * (4 if settings.get("backend") == "reference" else 0)
        per_element += 2 * word + (settings["band"] + 2) * state + state + scratch
    return per_element * group.workload.elements
