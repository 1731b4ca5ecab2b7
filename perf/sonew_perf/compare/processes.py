"""The processes of both sides, started together, asked in turn; one per framework, since torch and JAX do not share one."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Self

import sonew_autotune.measure
from sonew_perf.compare.cases import Case
from sonew_perf.compare.sides import Side
from sonew_perf.errors import MeasurementError
from sonew_perf.process import ROOT

SAMPLER: Final = Path(__file__).with_name("sampler.py")
MEASURE: Final = Path(sonew_autotune.measure.__file__).resolve()
PREPARE_S: Final = 300.0  # compiling kernels for the first time, and JAX's compilation
SAMPLE_S: Final = 60.0
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

    def environment(self) -> dict[str, str]:
        """Its own sources before whatever is installed, its own store."""
        paths = [str(self.tree), str(self.tree / "kernels")]
        inherited = {name: value for name, value in os.environ.items() if name not in {"TRITON_INTERPRET", "PYTHONPATH"}}
        chosen = {"SONEW_STORE": str(self.side.store)} if self.side.store is not None else {}
        return inherited | {"PYTHONPATH": os.pathsep.join(paths)} | chosen


@dataclass(slots=True)
class Process:
    """One sampler. Its answers are lines of JSON; a late or missing one ends it."""

    subject: Subject
    _running: subprocess.Popen[bytes] = field(init=False)
    _selector: selectors.BaseSelector = field(init=False)
    _words: IO[bytes] = field(init=False)

    def __post_init__(self) -> None:
        """Start it, with a temporary file for what it says beside its answers."""
        command = [self.subject.python, "-P", str(SAMPLER), str(MEASURE)]
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process
        self._running = subprocess.Popen(  # noqa: S603  # our own program
            command,
            cwd=ROOT,
            env=self.subject.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            start_new_session=True,
        )
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._running.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]  # a pipe, as asked for

    def _line(self, deadline: float) -> bytes:
        read = bytearray()
        while not read.endswith(b"\n"):
            if not self._selector.select(max(0.0, deadline - time.monotonic())):
                msg = f"{self.subject.side.title} gave no answer in time"
                raise MeasurementError(msg)
            piece = os.read(self._running.stdout.fileno(), 2**16)  # type: ignore[union-attr]  # a pipe, as asked for
            if not piece:
                msg = f"{self.subject.side.title}: its process ended with status {self._running.wait()}{self._last_words()}"
                raise MeasurementError(msg)
            read += piece
        return bytes(read)

    def _last_words(self) -> str:
        self._words.seek(0)
        lines = self._words.read()[-TAIL:].decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            MeasurementError: an error was the answer, or there was none in time.
        """
        pipe = self._running.stdin
        try:
            pipe.write(json.dumps(request).encode() + b"\n")  # type: ignore[union-attr]  # a pipe, as asked for
            pipe.flush()  # type: ignore[union-attr]  # as above
        except OSError as error:
            msg = f"{self.subject.side.title}: its process is gone ({error})"
            raise MeasurementError(msg) from error
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

    def __init__(self, base: Subject, head: Subject, device: str) -> None:
        self._device = device
        self._processes: list[Process] = []
        try:
            for subject in (base, head):
                self._processes.append(Process(subject))
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
            said.append(process.ask(request | {"slowdown": subject.slowdown}, PREPARE_S))
        return max(answer.pop("calls") for answer in said), said

    def sample(self, case: str, side: int, calls: int) -> float:
        """Milliseconds per call of a prepared case, on side 0 (base) or 1 (head)."""
        return float(self._processes[side].ask({"do": "sample", "name": case, "calls": calls}, SAMPLE_S)["ms"])

    def close(self) -> None:
        """End both processes."""
        for process in self._processes:
            process.close()


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
