"""Compiling candidates on the CPU's cores while a GPU times others, so that the device never waits for a compiler."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from sonew.config import LaunchConfig
from sonew.errors import SonewError
from sonew_autotune.compiler.warm import Launch, Warmed, warm
from sonew_autotune.problems import Case
from sonew_autotune.space import Config, available_cores
from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.worker import Worker

MOST_COMPILERS: Final = 8  # each is a process that holds torch and a compiler


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileRequest:
    """What a candidate launches, and the GPU it is compiled for."""

    launch: Launch
    target: str


def answer_compile(request: CompileRequest) -> Failure | None:
    """Fill Triton's cache with the candidate's kernels; the failure where the compiler refuses one of them.

    Where the cache cannot be filled (it cannot be written, the disk is full, Triton is set not to use it) the candidate is not to
    blame: the process that times it compiles it, too.
    """
    broken: list[Warmed] = []
    with suppress(SonewError):
        warm([request.launch], request.target, lambda warmed: broken.append(warmed) if warmed.refused else None)
    return Failure("compile", broken[0].error) if broken else None


def make_compiler() -> Callable[[CompileRequest], Failure | None]:
    """For `worker.Worker`."""
    return answer_compile


def launch_of(case: Case, kernel: str, config: Config) -> Launch:
    """What a case's step launches under a configuration."""
    return Launch(
        band=case.band,
        config=LaunchConfig.of(kernel, config),
        param_dtype=case.param_dtype,
        grad_dtype=case.grad_dtype,
        state_dtype=case.state_dtype,
        direction_dtype=case.direction_dtype,
        chained=case.chain != "tensor",
    )


class CompileAhead:
    """Compiler processes that work through candidates in the background. A context manager.

    Args:
        seconds: for one candidate; one that takes longer is stopped and counts as failed.
        processes: how many at once; None: a core is left to the process that times.
        make_answer: what a process does, see `worker.Worker`.
    """

    def __init__(
        self, seconds: float, *, processes: int | None = None, make_answer: Callable[[], Callable[[Any], Failure | None]] = make_compiler
    ) -> None:
        self.processes = max(1, min(MOST_COMPILERS, available_cores() - 1)) if processes is None else processes
        self._seconds = seconds
        self._free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._workers = [Worker(make_answer) for _ in range(self.processes)]
        for worker in self._workers:
            self._free.put(worker)
        self._threads = ThreadPoolExecutor(self.processes, thread_name_prefix="compile")

    def submit(self, request: CompileRequest) -> Future[Failure | None]:
        """Begin to compile; the future's result is a failure of the candidate, or None: it was compiled, or will be where it is timed.

        A compiler that dies (of too little memory, say) has not judged the candidate.
        """
        return self._threads.submit(self._compile, request)

    def _compile(self, request: CompileRequest) -> Failure | None:
        worker = self._free.get()
        try:
            outcome: Failure | None = worker.answer(request, self._seconds)
        finally:
            self._free.put(worker)
        if outcome is not None and outcome.kind == "timeout":
            return Failure("compile timeout", f"not compiled after {self._seconds:.0f} s, the compiler was stopped")
        return outcome if outcome is not None and outcome.kind == "compile" else None

    def close(self) -> None:
        """Stop every process, whatever it is at, and the threads that wait for them."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.close()
        self._threads.shutdown()
