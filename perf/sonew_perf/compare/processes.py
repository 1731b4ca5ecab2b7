"""The processes of both sides, started together, asked in turn; one per framework, since torch and JAX do not share one."""

from __future__ import annotations

import contextlib
import json
import os
import random
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Self

import sonew_autotune.measure
from sonew_autotune.device import device_name
from sonew_autotune.trials.turns import DeviceBusyError, lock_of, turns_on
from sonew_perf.compare.cases import JAX, Case
from sonew_perf.compare.sides import Side
from sonew_perf.errors import MeasurementError, ProcessGoneError
from sonew_perf.jax.ask import ENVIRONMENT, ONLY_CPU

SAMPLER: Final = Path(__file__).with_name("sampler.py")
MEASURE: Final = Path(sonew_autotune.measure.__file__).resolve()
PREPARE_S: Final = 300.0  # compiling kernels for the first time, and JAX's compilation
SAMPLE_S: Final = 60.0
GRACE_S: Final = 5.0  # past the budget, for an answer that is on its way
TAIL: Final = 2000  # characters of a dead process's last words


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A side with what it runs on.

    Attributes:
        side: as named. tree: its files. python: the interpreter of its environment.
        slowdown: share of its own time by which it is slowed down on purpose.
    """

    side: Side
    tree: Path
    python: str = sys.executable
    slowdown: float = 0.0

    def environment(self, framework: str, device: str) -> dict[str, str]:
        """Its own sources before whatever is installed, its own store, and JAX on the device that is compared."""
        paths = [str(self.tree), str(self.tree / "kernels")]
        inherited = {name: value for name, value in os.environ.items() if name not in {"TRITON_INTERPRET", "PYTHONPATH"}}
        chosen = {"SONEW_STORE": str(self.side.store)} if self.side.store is not None else {}
        jax = ENVIRONMENT | (ONLY_CPU if device == "cpu" else {}) if framework == JAX else {}
        return inherited | {"PYTHONPATH": os.pathsep.join(paths)} | chosen | jax


@dataclass(slots=True)
class Process:
    """One sampler. Its answers are lines of JSON; a late or missing one ends it."""

    subject: Subject
    framework: str
    device: str
    _running: subprocess.Popen[bytes] = field(init=False)
    _selector: selectors.BaseSelector = field(init=False)
    _words: IO[bytes] = field(init=False)

    def __post_init__(self) -> None:
        """Start it, with a temporary file for what it says beside its answers.

        Raises:
            MeasurementError: its interpreter cannot be started.
        """
        command = [self.subject.python, "-P", str(SAMPLER), str(MEASURE)]
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process
        try:
            self._running = subprocess.Popen(  # noqa: S603  # our own program
                command,
                cwd=self.subject.tree,
                env=self.subject.environment(self.framework, self.device),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._words,
                start_new_session=True,
            )
        except OSError as error:
            self._words.close()
            msg = f"{self.subject.side.title}: {self.subject.python} cannot be started ({error})"
            raise MeasurementError(msg) from error
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._running.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]  # a pipe, as asked for

    def _line(self, deadline: float) -> bytes:
        read = bytearray()
        while not read.endswith(b"\n"):
            if not self._selector.select(max(0.0, deadline - time.monotonic())):
                msg = f"{self.subject.side.title} gave no answer in time"
                raise ProcessGoneError(msg)
            piece = os.read(self._running.stdout.fileno(), 2**16)  # type: ignore[union-attr]  # a pipe, as asked for
            if not piece:
                msg = f"{self.subject.side.title}: its process ended with status {self._running.wait()}{self._last_words()}"
                raise ProcessGoneError(msg)
            read += piece
        return bytes(read)

    def _last_words(self) -> str:
        self._words.seek(0)
        lines = self._words.read()[-TAIL:].decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            MeasurementError: an error was the answer. ProcessGoneError: there was none, or none in time.
        """
        pipe = self._running.stdin
        try:
            pipe.write(json.dumps(request).encode() + b"\n")  # type: ignore[union-attr]  # a pipe, as asked for
            pipe.flush()  # type: ignore[union-attr]  # as above
        except OSError as error:
            msg = f"{self.subject.side.title}: its process is gone ({error})"
            raise ProcessGoneError(msg) from error
        answer: dict[str, Any] = json.loads(self._line(time.monotonic() + seconds))
        if "error" in answer:
            raise MeasurementError(str(answer["error"])[:TAIL])
        return answer

    def close(self) -> None:
        """End it, whatever it is at."""
        self._selector.close()
        self._words.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._running.pid, signal.SIGKILL)
        for pipe in (self._running.stdin, self._running.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]  # as above
        self._running.wait()


class Pair:
    """Both sides' processes for one framework: one launch of a comparison."""

    def __init__(self, base: Subject, head: Subject, *, framework: str, device: str, deadline: float) -> None:
        self._device, self._deadline = device, deadline
        self._processes: list[Process] = []
        try:
            for subject in (base, head) if _coin() else (head, base):  # who comes first may find the better place
                self._processes.append(Process(subject, framework, device))
            self._processes.sort(key=lambda process: process.subject is head)
            for process in self._processes:
                _check_sources(process)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End both processes."""
        self.close()

    def prepare(self, case: Case) -> tuple[int, list[dict[str, Any]]]:
        """Build a case on both sides.

        Returns:
            calls per sample, the same for both, and what each side says of the case.
        """
        said = []
        for process in self._processes:
            subject = process.subject
            request = {"do": "prepare", "case": case.request(), "device": self._device, "tuning": subject.side.tuning}
            said.append(process.ask(request | {"slowdown": subject.slowdown}, self._left(PREPARE_S)))
        return max(answer.pop("calls") for answer in said), said

    def renew(self, case: str) -> None:
        """Put a prepared case's tensors elsewhere in memory, on both sides."""
        for process in self._processes if _coin() else reversed(self._processes):
            process.ask({"do": "renew", "name": case}, self._left(SAMPLE_S))

    def sample(self, case: str, side: int, calls: int) -> float:
        """Milliseconds per call of a prepared case, on side 0 (base) or 1 (head)."""
        return float(self._processes[side].ask({"do": "sample", "name": case, "calls": calls}, self._left(SAMPLE_S))["ms"])

    def _left(self, seconds: float) -> float:
        """So many seconds, or what is left of the budget and a little."""
        return min(seconds, max(self._deadline - time.monotonic(), 0.0) + GRACE_S)

    def close(self) -> None:
        """End both processes."""
        for process in self._processes:
            process.close()


def _coin() -> bool:
    return random.random() < 0.5  # noqa: S311  # an order, not a secret


@contextmanager
def launched(base: Subject, head: Subject, *, framework: str, device: str, deadline: float) -> Iterator[Pair]:
    """A pair of processes, in its turn on the device: a tuner or another measurement there is waited for.

    Raises:
        MeasurementError: the device was not free in time, or a process cannot be started.
    """
    with ExitStack() as held:
        try:
            held.enter_context(turns_on(lock_of(device_name(device)))(deadline))
        except DeviceBusyError as error:
            raise MeasurementError(str(error)) from error
        yield held.enter_context(Pair(base, head, framework=framework, device=device, deadline=deadline))


def _check_sources(process: Process) -> None:
    """A side must measure its own sources: an installed copy that comes first would compare something with itself.

    Raises:
        MeasurementError: its SONew comes from elsewhere.
    """
    found = Path(process.ask({"do": "say"}, PREPARE_S)["sonew"])
    wanted = (process.subject.tree / "sonew").resolve()
    if found != wanted:
        msg = f"{process.subject.side.title} imported SONew from {found}, not from {wanted}"
        raise MeasurementError(msg)
