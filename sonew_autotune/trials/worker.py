"""A process that answers requests, so that a crash, a hang or a poisoned GPU context costs one candidate and not the run."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from sonew_autotune.trials.outcome import TAINTING, Failure

Answer = Callable[[Any], Any]


def _serve(connection: Connection, make_answer: Callable[[], Answer]) -> None:
    """Answer requests until the other side closes. Ctrl-C is the parent's business: it decides what is kept."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answer = make_answer()
    with contextlib.suppress(EOFError, BrokenPipeError):
        connection.send(None)
        while True:
            connection.send(answer(connection.recv()))


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.0)


class Worker:
    """One worker process, started when first asked and again after it died or was killed.

    Args:
        make_answer: a module-level function, called once in the process; what it returns maps a request to an outcome,
            both picklable, and does not raise.
    """

    def __init__(self, make_answer: Callable[[], Answer]) -> None:
        self._make_answer = make_answer
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None

    def _start(self, deadline: float) -> Connection | None:
        """Start the process; None where it is not ready in time."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._make_answer), daemon=True)
        self._process.start()
        theirs.close()
        self._connection = ours
        if not ours.poll(_left(deadline)):
            return None
        ours.recv()
        return ours

    def answer(self, request: object, timeout_s: float) -> Any:  # noqa: ANN401  # whatever `make_answer` promises, or a Failure
        """The worker's outcome, or a failure of kind timeout or crash where there is none.

        Args:
            request: picklable.
            timeout_s: for everything: starting the process where there is none (importing torch, opening a device) and the answer.
        """
        deadline = time.monotonic() + timeout_s
        try:
            connection = self._connection or self._start(deadline)
            if connection is not None:
                connection.send(request)
                if connection.poll(_left(deadline)):
                    outcome = connection.recv()
                    if isinstance(outcome, Failure) and outcome.kind in TAINTING:
                        self.close()  # an illegal access leaves a GPU context that fails every later candidate
                    return outcome
        except (EOFError, OSError):
            status = self._exit_status()
            return Failure("crash", f"the worker process died ({status})")
        self.close()
        return Failure("timeout", f"no result after {timeout_s:.0f} s, the worker was stopped")

    def _exit_status(self) -> str:
        process = self._process
        if process is None:
            return "stopped"
        process.join(5)
        code = process.exitcode
        self.close()
        return f"signal {-code}" if code is not None and code < 0 else f"status {code}"

    def close(self) -> None:
        """Stop the process; the next request starts another. Another thread may be waiting for an answer: it gets a failure."""
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if process is not None:
            process.kill()
            process.join()
        if connection is not None:
            connection.close()
