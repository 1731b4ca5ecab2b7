"""Processes of this project: what they said, and whether they ended in time."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
TAIL_LINES: Final = 40


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that ended or was stopped: `status` is None where its time ended."""

    status: int | None
    output: str

    @property
    def tail(self) -> list[str]:
        """The end of what it said."""
        return self.output.splitlines()[-TAIL_LINES:]


def run_process(command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None) -> Finished:
    """Run a command of this project at the repository's root; past its time it is stopped with everything it started.

    Args:
        command: program and arguments. seconds: its time.
        environment: what it has beside this process's own.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    with subprocess.Popen(  # noqa: S603  # our own modules, and a program from PATH
        command,
        cwd=ROOT,
        env={**inherited, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            _stop(process)
            return Finished(None, process.communicate()[0])
        except BaseException:  # Ctrl-C does not reach a session of its own
            _stop(process)
            raise
    return Finished(process.returncode, output)


def _stop(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
