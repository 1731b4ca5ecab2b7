"""Telling how a run goes: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sonew_autotune.commands.render import config_text
from sonew_autotune.problems import Case
from sonew_autotune.search.results import Record, Result
from sonew_autotune.settings import Settings

REFRESH_PER_SECOND = 2  # the bar must not take the time it shows


class ConsoleReport:
    """A `results.Report` on a console; a context manager around the run.

    Attributes:
        results: what is finished so far, also after Ctrl-C.
    """

    def __init__(self, console: Console) -> None:
        self.results: list[Result] = []
        self._console = console
        self._cases = 0
        self._began, self._done = 0.0, 0
        self._best = 1.0
        self._bar: Progress | None = None
        self._problems: TaskID | None = None
        self._trials: TaskID | None = None

    def __enter__(self) -> Self:
        """The bar appears with the plan."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def _say(self, line: str, style: str | None = None) -> None:
        self._console.print(line, style=style, markup=False, soft_wrap=True)

    def plan(self, cases: Sequence[Case], device: str, settings: Settings) -> None:
        """Say what lies ahead and show the bar, if somebody watches."""
        self._cases = len(cases)
        self._say(f"Tuning {len(cases)} problems on {device}, at most {settings.budget_s:.0f} s and {settings.trials} trials each.")
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
            times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
            self._bar = Progress(*columns, *times, console=self._console, transient=True, refresh_per_second=REFRESH_PER_SECOND)
            self._problems = self._bar.add_task("problems", total=self._cases, rate="")
            self._trials = self._bar.add_task("trials", total=None, rate="")
            self._bar.start()

    def begin(self, case: Case, wanted: int, known: int, method: str) -> None:
        """Name the problem, how its candidates are chosen and what is known of it."""
        self._began, self._done = time.monotonic(), 0
        self._best = 1.0
        resumed = f", resuming after {known} finished trials" if known else ""
        place = f"[{len(self.results) + 1}/{self._cases}]"
        if self._bar is not None and self._trials is not None:
            self._bar.reset(self._trials, total=wanted, completed=known, description=case.title, rate="")
        if self._bar is None or known:
            chosen = f"every point of the space, {wanted} trials" if method == "every point" else f"{wanted} trials chosen by {method}"
            self._say(f"{place} {case.title}: {chosen}{resumed}")

    def trial(self, case: Case, record: Record) -> None:
        """Move the bar; mention failures."""
        if record.failure is not None:
            message = record.failure.message.splitlines()[0]
            self._say(f"  {config_text(record.config)}: {record.failure.kind}: {message}", style="yellow")
        self._done += 1
        if record.ratio is not None:
            self._best = min(self._best, record.ratio.median)
        if self._bar is not None and self._trials is not None:
            rate = f"{60 * self._done / max(time.monotonic() - self._began, 1e-9):.0f} trials/min"
            self._bar.update(self._trials, advance=1, description=f"{case.title}, best {1 / self._best:.2f}x the default", rate=rate)

    def end(self, result: Result) -> None:
        """Keep the result and say it in a line."""
        self.results.append(result)
        entry = result.entry
        shown = f": {config_text(entry.config.as_dict())}" if entry is not None else ""
        note = f" ({result.note})" if result.note else ""
        if self._bar is not None and self._problems is not None:
            self._bar.update(self._problems, advance=1)
        self._say(f"[{len(self.results)}/{self._cases}] {result.case.title}: {result.status}{shown}{note}")

    def warn(self, line: str) -> None:
        """A line that stands out."""
        self._say(f"warning: {line}", style="bold red")
