"""Tuning for a GPU that is not here: compile every candidate in processes of their own, and store what the static model makes of them."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from sonew.errors import InvalidConfigError
from sonew.tuned import type_names
from sonew_autotune.compiler.candidates import KERNEL, Outcome, Part, StaticResult, dtypes_of, judge, part_of, parts
from sonew_autotune.compiler.kernel import ALL_FLOAT32, Dtypes, compile_kernel
from sonew_autotune.compiler.model import RANKED
from sonew_autotune.compiler.targets import TARGETS, parse_target
from sonew_autotune.problems import Case
from sonew_autotune.space import Space, available_cores, build_space
from sonew_autotune.store import winners
from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.trial import classify
from sonew_autotune.trials.worker import Worker
from sonew_kernels.spec import SPECS

COMPILE_SECONDS: Final = 60.0
COMPILERS: Final = 8  # processes at most: each holds torch and a compiler

Code = tuple[Part, int | None, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileRequest:
    """One ranked kernel under one configuration."""

    kernel: str
    config: dict[str, int]
    band: int
    target: str
    dtypes: Dtypes

    @property
    def part(self) -> Part:
        """What of the configuration the kernel depends on."""
        return part_of(self.kernel, self.config)

    @property
    def code(self) -> Code:
        """What the machine code depends on, besides the target: the update kernel knows neither band nor state."""
        dtypes = self.dtypes
        if self.kernel == "update":
            return self.part, None, (dtypes.param, dtypes.direction)
        return self.part, self.band, (dtypes.grad, dtypes.state, dtypes.direction)


Told = Callable[[CompileRequest, Outcome], None]


class Report(Protocol):
    """Whom `tune_static` tells how it goes."""

    def begin(self, title: str, count: int) -> None:
        """So many compilations start."""

    def told(self, request: CompileRequest, outcome: Outcome) -> None:
        """One was compiled."""

    def warn(self, line: str) -> None:
        """Something the user must know."""


def answer_compile(request: CompileRequest) -> Outcome:
    """Compile; text and machine code stay behind, only the resources travel."""
    try:
        compiled = compile_kernel(request.kernel, request.config, request.band, request.target, dtypes=request.dtypes)
    except Exception as error:  # noqa: BLE001  # whatever the compiler raises ends this candidate only
        return replace(classify(error), kind="compile")
    return replace(compiled, stages={}, binary=None)


def make_compiler() -> Callable[[CompileRequest], Outcome]:
    """For `worker.Worker`."""
    return answer_compile


def _quiet_compiler() -> Callable[[CompileRequest], Outcome]:
    """For the trial of a target: what the compilers print on their way down says less than the error does."""
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(null, descriptor)
    return answer_compile


def check_target(target: str, band: int) -> None:
    """Refuse a target that nothing can be compiled for, in a process of its own: for an unknown one, LLVM aborts.

    Raises:
        InvalidConfigError: not of the form of a target, or the compilers reject it.
    """
    parse_target(target)
    if target in TARGETS:
        return
    config, worker = SPECS[KERNEL].default(band), Worker(_quiet_compiler)
    try:
        outcome = worker.answer(
            CompileRequest(kernel="update", config=config, band=band, target=target, dtypes=ALL_FLOAT32), COMPILE_SECONDS
        )
    finally:
        worker.close()
    if isinstance(outcome, Failure):
        reason = outcome.message.replace("the worker process", "the compiler")
        msg = f"target={target!r} cannot be used: {reason}. Use for example one of {list(TARGETS)}: pass --target {TARGETS[1]}."
        raise InvalidConfigError(msg)


class Compilers:
    """Processes that compile side by side; one that takes too long is stopped and ends only its own candidate.

    Args:
        processes: how many at once; one per core where None.
    """

    def __init__(self, processes: int | None = None) -> None:
        wanted = available_cores() if processes is None else processes
        self._workers = [Worker(make_compiler) for _ in range(max(1, min(wanted, COMPILERS)))]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self._workers:
            worker.close()

    def compile(self, requests: Sequence[CompileRequest], *, deadline: float, told: Told) -> dict[Code, Outcome]:
        """The outcomes of what was compiled in time.

        Args:
            requests: compiled in this order.
            deadline: `time.monotonic()` after which none is begun and none goes on.
            told: called for each, one at a time.
        """
        waiting: queue.SimpleQueue[CompileRequest] = queue.SimpleQueue()
        for request in requests:
            waiting.put(request)
        outcomes: dict[Code, Outcome] = {}
        lock, stop = threading.Lock(), threading.Event()

        def serve(worker: Worker) -> None:
            while not stop.is_set() and time.monotonic() < deadline:
                try:
                    request = waiting.get_nowait()
                except queue.Empty:
                    return
                allowed = min(COMPILE_SECONDS, max(deadline - time.monotonic(), 1.0))
                outcome: Outcome = worker.answer(request, allowed)
                if isinstance(outcome, Failure) and outcome.kind == "timeout":
                    if allowed < COMPILE_SECONDS:
                        return  # the budget ended, which says nothing about the candidate
                    outcome = replace(outcome, kind="compile timeout")
                with lock:
                    if not stop.is_set():
                        outcomes[request.code] = outcome
                        told(request, outcome)

        threads = [threading.Thread(target=serve, args=(worker,), daemon=True) for worker in self._workers[: len(requests)]]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            stop.set()
        return outcomes


def requests_of(space: Space, dtypes: Dtypes, target: str, configs: Iterable[Mapping[str, int]] | None = None) -> list[CompileRequest]:
    """Every different kernel of the space, or of the given configurations: the default's first and then the nearer ones."""
    wanted = None if configs is None else {part_of(kernel, config) for config in configs for kernel in RANKED}
    return [
        CompileRequest(kernel=part[0], config=config, band=space.band, target=target, dtypes=dtypes)
        for part, config in parts(space).items()
        if wanted is None or part in wanted
    ]


def tune_static(
    cases: Sequence[Case],
    target: str,
    compilers: Compilers,
    *,
    store_path: Path,
    deadline: float,
    report: Report,
) -> Iterator[StaticResult]:
    """Rank and store, problem by problem. What was compiled for one serves the others: sizes share everything, bands the update kernel.

    Args:
        cases: bands, dtypes and sizes.
        target: "cuda:90", "hip:gfx942" and the like.
        compilers: what compiles.
        store_path: where entries go.
        deadline: `time.monotonic()` after which nothing is compiled. Each problem has its share of the time that is left.
        report: told how it goes.
    """
    parse_target(target)
    known: dict[Code, Outcome] = {}
    waiting = {(case.band, dtypes_of(case)) for case in cases}
    for case in cases:
        space, dtypes = build_space(KERNEL, case.band, threads=0), dtypes_of(case)
        requests = requests_of(space, dtypes, target)
        missing = [request for request in requests if request.code not in known]
        if missing and (case.band, dtypes) in waiting:
            now = time.monotonic()
            report.begin(f"band {case.band} {type_names(case.problem)}", len(missing))
            known |= compilers.compile(missing, deadline=now + (deadline - now) / len(waiting), told=report.told)
        waiting.discard((case.band, dtypes))
        outcomes = {request.part: known[request.code] for request in requests if request.code in known}
        result = judge(case, target, outcomes, space)
        if result.entry is not None:
            winners.save(store_path, result.entry, warn=report.warn)
        yield result
