"""A process that answers requests, so that a crash, a hang or a poisoned GPU context costs one candidate and not the run."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Final

from sonew_autotune.trials.outcome import TAINTING, Failure

Answer = Callable[[Any], Any]
CLOSED: Final = Failure("crash", "the worker was closed")
_DYING_S: Final = 5.0  # from the end of a worker's pipe to that of its process
_ORPHANED: Final = 1  # exit status of a worker whose parent is gone: nobody reads it


def _end_with_parent() -> None:
    """End this process with the one that started it, whatever it is at: killed inside a trial, a parent closes nothing.

    A thread waits for it. Linux's own signal for this comes when the *thread* that started the process ends, and workers are
    started by threads that do.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(_ORPHANED)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _serve(connection: Connection, make_answer: Callable[[], Answer]) -> None:
    """Answer requests until the other side closes. Ctrl-C is the parent's business: it decides what is kept."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.set_inheritable(connection.fileno(), False)  # noqa: FBT003  # its only form. Else a compiler that outlives this process would keep the pipe open
    _end_with_parent()
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
        self._turn = threading.Lock()  # held by whoever is answered, who alone touches the connection
        self._books = threading.Lock()  # of what follows; never held for long
        self._closed = False
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None

    def _start(self, deadline: float) -> Connection | None:
        """Start the process; None where it is not ready in time, or where the worker was closed."""
        context = multiprocessing.get_context("spawn")
        with self._books:
            if self._closed:
                return None
            ours, theirs = context.Pipe()
            self._connection = ours
            with contextlib.closing(theirs):
                self._process = context.Process(target=_serve, args=(theirs, self._make_answer), daemon=True)
                self._process.start()
        if not ours.poll(_left(deadline)):
            return None
        ours.recv()
        return ours

    def answer(self, request: object, timeout_s: float) -> Any:  # noqa: ANN401  # whatever `make_answer` promises, or a Failure
        """The worker's outcome, or a failure of kind timeout or crash where there is none. One request at a time.

        Args:
            request: picklable.
            timeout_s: for everything: starting the process where there is none (importing torch, opening a device) and the answer.
        """
        deadline = time.monotonic() + timeout_s
        with self._turn:
            try:
                connection = self._connection or self._start(deadline)
                if connection is not None:
                    connection.send(request)
                    if connection.poll(_left(deadline)):
                        outcome = connection.recv()
                        if isinstance(outcome, Failure) and outcome.kind in TAINTING:
                            self._stop()  # an illegal access leaves a GPU context that fails every later candidate
                        return outcome
            except (EOFError, OSError):
                status = self._exit_status()
                return CLOSED if self._closed else Failure("crash", f"the worker process died ({status})")
            self._stop()
            return CLOSED if self._closed else Failure("timeout", f"no result after {timeout_s:.0f} s, the worker was stopped")

    def _exit_status(self) -> str:
        process = self._process
        if process is None or process.pid is None:
            self._stop()
            return "it was not started"
        deadline = time.monotonic() + _DYING_S
        while (code := process.exitcode) is None and time.monotonic() < deadline:
            time.sleep(0.01)  # `join` waits for a pipe, which a compiler that the worker started may hold open
        self._stop()
        return f"signal {-code}" if code is not None and code < 0 else f"status {code}"

    def _stop(self) -> None:
        """End the process; the next request starts another. Only for whoever has the turn."""
        with self._books:
            process, connection = self._process, self._connection
            self._process = self._connection = None
            if process is not None and process.pid is not None:
                process.kill()
                process.join()
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """End the process for good. A thread that waits for an answer gets a failure, at once, and so does every later request."""
        with self._books:
            self._closed = True
            if self._process is not None and self._process.pid is not None:
                self._process.kill()
        with self._turn:
            self._stop()
