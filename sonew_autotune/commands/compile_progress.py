"""How compiling goes: a bar on a terminal, a line per band and per failure everywhere."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.progress import Progress, TaskID

from sonew_autotune.commands.progress import REFRESH_PER_SECOND
from sonew_autotune.compiler.candidates import Outcome
from sonew_autotune.compiler.cross import CompileRequest
from sonew_autotune.trials.outcome import Failure


class CompileReport:
    """A `compiler.cross.Report` for people."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(console=console, transient=True, refresh_per_second=REFRESH_PER_SECOND, disable=not console.is_terminal)
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.stop()

    def begin(self, title: str, count: int) -> None:
        """So many compilations start."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(title, total=count)
        self._say(f"{title}: compiling {count} kernels")

    def told(self, request: CompileRequest, outcome: Outcome) -> None:
        """One was compiled."""
        if self._task is not None:
            self._bar.advance(self._task)
        if isinstance(outcome, Failure):
            kernel, values = request.part
            self._say(f"  {kernel} {values}: {outcome.kind}: {outcome.message.splitlines()[0]}", style="yellow")

    def warn(self, line: str) -> None:
        """A line that stands out."""
        self._say(f"warning: {line}", style="bold red")

    def _say(self, line: str, style: str | None = None) -> None:
        self._console.print(line, style=style, markup=False, soft_wrap=True)
