"""How a run shows that it goes on: a bar for people, plain lines otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sonew_autotune.commands.text import printable
from sonew_perf.records.files import Entry
from sonew_perf.suite.groups import Group
from sonew_perf.suite.run import DONE


class GroupProgress:
    """Tells of every group, on the error output.

    Args:
        console: where. groups: all of them. seconds: that a group is thought to take.
    """

    def __init__(self, console: Console, groups: Sequence[Group], seconds: Callable[[Group], float]) -> None:
        self._console, self._seconds = console, seconds
        self._count, self._done = len(groups), 0
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("measuring", total=self._count)

    def __enter__(self) -> Self:
        """Show the bar, if somebody watches."""
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Take it away."""
        self._bar.stop()

    def begin(self, group: Group) -> None:
        """Name the group."""
        self._bar.update(self._task, description=group.name)
        if not self._console.is_terminal:
            self._say(f"[{self._done + 1}/{self._count}] {group.name}: about {self._seconds(group):.0f} s")

    def end(self, group: Group, entries: Sequence[Entry], seconds: float) -> None:
        """Move on; what was not measured is a line."""
        self._done += 1
        self._bar.advance(self._task)
        reasons: dict[str, list[str]] = {}
        for entry in entries:
            if (status := entry.get("status", DONE)) != DONE:
                reasons.setdefault(f"{status} ({entry['reason']})", []).append(entry["case"])
        for reason, cases in reasons.items():
            which = "all cases" if len(cases) == len(entries) else ", ".join(dict.fromkeys(cases))
            self._say(f"{group.name}: {which} {reason}", style="yellow")
        if not self._console.is_terminal:
            self._say(f"[{self._done}/{self._count}] {group.name}: {seconds:.1f} s")

    def _say(self, line: str, style: str | None = None) -> None:
        self._console.print(printable(line), style=style, markup=False, highlight=False, soft_wrap=True)
