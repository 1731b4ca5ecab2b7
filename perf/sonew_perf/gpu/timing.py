"""Times the methods of one case against each other, in a process of its own: what fails is a result, the others go on."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import torch

from sonew_autotune.measure import Samples, interleave, paired_ratio, roof_share
from sonew_autotune.trials.outcome import Failure
from sonew_perf.entries import in_one_line
from sonew_perf.steps.cases import TimedCase, fixed_tensors
from sonew_perf.steps.peers import COPY, FUSED, GRAPH, Method, Params, prepare
from sonew_perf.steps.runner import case_entry
from sonew_perf.steps.workloads import Workload

COPY_BYTES_PER_ELEMENT: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One case: methods that are interleaved in one run.

    Attributes:
        workload: the tensors.
        methods: with the ways in which each is timed.
        device: "cuda" or "cpu".
        rounds: samples per method and way.
    """

    workload: Workload
    methods: tuple[Method, ...]
    device: str
    rounds: int

    @property
    def case_names(self) -> tuple[str, ...]:
        """What is timed."""
        return tuple(name for method in self.methods for name in method.case_names)


@dataclass(frozen=True, slots=True)
class Request:
    """A case, without the methods that are known to break it: name and reason."""

    timing: Timing
    broken: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Broken:
    """A method left the process unusable (a failed capture, an illegal access): the others need a fresh one."""

    case: str
    reason: str


Answer = dict[str, Any] | Broken | Failure


def reason_of(error: BaseException) -> str:
    """An error in one line."""
    return in_one_line(error, "out of memory" if isinstance(error, torch.cuda.OutOfMemoryError) else "")


def _usable(device: str) -> bool:
    """Whether the process can go on after an error."""
    if device == "cpu":
        return True
    gc.collect()
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        return bool(torch.ones(1, device=device).add_(1).item() == 2)
    except RuntimeError:
        return False


class _BrokenProcessError(Exception):
    """Carries what is answered."""

    def __init__(self, broken: Broken) -> None:
        super().__init__(broken.reason)
        self.broken = broken


def _attempt(make: Callable[[], Any], name: str, way: str, timing: Timing, failures: dict[str, str]) -> Any:  # noqa: ANN401  # what `make` returns
    """What `make` returns, or None with the reason in `failures`."""
    try:
        made = make()
        if timing.device == "cuda":
            torch.cuda.synchronize()
    except Exception as error:  # noqa: BLE001  # whatever it is, it is this method's result
        failures[name] = reason_of(error)
    else:
        return made
    if timing.device == "cuda" and (way == GRAPH or not _usable(timing.device)):
        raise _BrokenProcessError(Broken(name, failures[name]))
    return None


def _ready_cases(request: Request, params: Params, failures: dict[str, str]) -> list[TimedCase]:
    """Every case that can be timed, graphs last: a capture that fails ends the process."""
    timing, cases, prepared = request.timing, [], []
    for method in timing.methods:
        ways = [way for way in method.ways if method.case(way) not in request.broken]
        if not ways:
            continue
        made = _attempt(partial(prepare, method, params), method.case(ways[0]), "", timing, failures)
        if made is None:
            failures |= {method.case(way): failures[method.case(ways[0])] for way in ways}
        else:
            prepared += [(made, way) for way in ways]
    for made, way in sorted(prepared, key=lambda pair: pair[1] == GRAPH):
        case = _attempt(partial(made.timed, way), made.method.case(way), way, timing, failures)
        if case is not None:
            cases.append(case)
    order = timing.case_names
    return sorted(cases, key=lambda case: order.index(case.name))


def _copy_share(case: TimedCase, samples: Mapping[str, Samples], elements: int) -> dict[str, float] | None:
    """Nominal bytes per second over the copy's, median with 95 % interval, for a case that states its bytes."""
    if "bytes" not in case.settings or COPY not in samples:
        return None
    faster = paired_ratio(samples[case.name], samples[COPY])  # bytes over time: the share falls as the ratio grows
    low, median, high = (
        roof_share(
            bytes_moved=float(case.settings["bytes"]), time_ms=ratio, copy_bytes=float(COPY_BYTES_PER_ELEMENT * elements), copy_ms=1.0
        )
        for ratio in (faster.high, faster.median, faster.low)
    )
    return {"median": round(median, 4), "low": round(low, 4), "high": round(high, 4)}


def _peers(case: TimedCase, samples: Mapping[str, Samples]) -> list[str]:
    """What the case is a multiple of: fused AdamW launched the same way, and the copy."""
    return [name for name in (f"{FUSED}, {case.settings['way']}", COPY) if name in samples]


def time_case(request: Request) -> Answer:
    """Time a case.

    Returns:
        workload, load_before, `entries` (one per method and way that ran, as `runner.case_entry` makes them, with `copy_share`) and
        `failures` (case to reason); or `Broken` where the process must be left.
    """
    timing, failures = request.timing, dict(request.broken)
    device, load = torch.device(timing.device), round(os.getloadavg()[0], 2)
    params = fixed_tensors(timing.workload, device)
    try:
        cases = _ready_cases(request, params, failures)
    except _BrokenProcessError as error:
        return error.broken
    works = {case.name: case.work for case in cases}
    samples = interleave(works, rounds=timing.rounds, device=timing.device) if works else {}
    entries = []
    for case in cases:
        try:
            entries.append(_entry(case, samples, device, timing))
        except Exception as error:  # noqa: BLE001  # its phases or its memory could not be measured; the others' samples stand
            failures[case.name] = reason_of(error)
    return {
        "workload": timing.workload.described(),
        "load_before": load,
        "entries": entries,
        "failures": failures,
    }


def _entry(case: TimedCase, samples: Mapping[str, Samples], device: torch.device, timing: Timing) -> dict[str, Any]:
    eager_steps = case.settings["way"] == "eager"
    entry = case_entry(case, samples, device, peers=_peers(case, samples), phases=eager_steps)
    return entry | {"copy_share": _copy_share(case, samples, timing.workload.elements)}


def make_timer() -> Callable[[Request], Answer]:
    """What the worker process answers with; an error outside a single method is the whole case's."""

    def answer(request: Request) -> Answer:
        try:
            return time_case(request)
        except Exception as error:  # noqa: BLE001  # the process reports and the run goes on
            return Failure("error", reason_of(error))

    return answer
