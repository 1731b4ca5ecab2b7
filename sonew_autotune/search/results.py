"""What a run knows and says: finished trials, results of problems, and who is told. No Optuna in here: `show` reads it, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from sonew import tuned
from sonew_autotune.measure import Ratio
from sonew_autotune.problems import Case
from sonew_autotune.space import Space
from sonew_autotune.trials.outcome import Failure

Status = Literal["tuned", "default kept", "reused", "failed", "unfinished"]


@dataclass(frozen=True, slots=True)
class Record:
    """A finished trial: either `ratio` (to the default) and times, or a failure."""

    config: dict[str, int]
    ratio: Ratio | None = None
    median_ms: float | None = None
    default_ms: float | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Tried:
    """What a search has tried of its space; `exhaustive`: it set out to try every point."""

    space: Space
    records: Sequence[Record]
    exhaustive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one problem.

    Attributes:
        entry: what the store holds for it, None where nothing was decided.
        note: one line: what was resumed, why it failed.
        failures: candidates that were not timed, with reasons.
    """

    case: Case
    status: Status
    entry: tuned.Entry | None = None
    note: str = ""
    failures: tuple[Record, ...] = ()


class Report(Protocol):
    """Who is told how the run goes."""

    def begin(self, case: Case, wanted: int, known: int) -> None:
        """A problem's search starts, with so many trials known from an earlier run."""

    def trial(self, case: Case, record: Record) -> None:
        """A trial ended."""

    def end(self, result: Result) -> None:
        """A problem is done."""

    def warn(self, line: str) -> None:
        """Something the user must know."""
