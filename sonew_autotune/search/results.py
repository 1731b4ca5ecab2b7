"""What a run knows and says: finished trials, results of problems, and who is told. No Optuna in here: `show` reads it, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from sonew import tuned
from sonew_autotune.measure import Ratio
from sonew_autotune.problems import Case
from sonew_autotune.settings import Settings
from sonew_autotune.space import Space
from sonew_autotune.trials.outcome import Failure

Status = Literal["tuned", "default kept", "reused", "failed", "unfinished"]


@dataclass(frozen=True, slots=True)
class Record:
    """A finished trial: either `ratio` (to the default) and times, or a failure.

    Attributes:
        times_ms, default_times_ms, copy_times_ms: the samples, round by round.
        roof_share: bytes per second as a share of a copy's in the same rounds. pruned: timed in fewer rounds than the rest.
        seconds: that the trial took. finished: when it ended, seconds since 1970.
    """

    config: dict[str, int]
    ratio: Ratio | None = None
    median_ms: float | None = None
    default_ms: float | None = None
    failure: Failure | None = None
    times_ms: tuple[float, ...] = ()
    default_times_ms: tuple[float, ...] = ()
    copy_times_ms: tuple[float, ...] = ()
    roof_share: float | None = None
    pruned: bool = False
    seconds: float = 0.0
    finished: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The record as a journal has it."""
        return asdict(self)


def parse_record(raw: Mapping[str, Any]) -> Record:
    """The record behind `Record.as_json`."""
    ratio, failure = raw["ratio"], raw["failure"]
    samples = {name: tuple(raw[name]) for name in ("times_ms", "default_times_ms", "copy_times_ms")}
    return Record(
        **{
            **raw,
            **samples,
            "config": dict(raw["config"]),
            "ratio": Ratio(**ratio) if ratio else None,
            "failure": Failure(**failure) if failure else None,
        }
    )


@dataclass(frozen=True, slots=True)
class Tried:
    """What a search has tried of its space.

    Attributes:
        method: how points were chosen: "every point" or a sampler's name. stopped: why it ended, see `stopping.Stop`.
    """

    space: Space
    records: Sequence[Record]
    method: str
    stopped: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one problem.

    Attributes:
        entry: what the store holds for it, None where nothing was decided.
        note: one line: what was resumed, why the search stopped, why it failed.
        failures: candidates that were not timed, with reasons.
    """

    case: Case
    status: Status
    entry: tuned.Entry | None = None
    note: str = ""
    failures: tuple[Record, ...] = ()


class Report(Protocol):
    """Who is told how the run goes."""

    def plan(self, cases: Sequence[Case], device: str, settings: Settings) -> None:
        """The run starts with these problems."""

    def begin(self, case: Case, wanted: int, known: int, method: str) -> None:
        """A problem's search starts, with so many trials known from an earlier run."""

    def trial(self, case: Case, record: Record) -> None:
        """A trial ended."""

    def end(self, result: Result) -> None:
        """A problem is done."""

    def warn(self, line: str) -> None:
        """Something the user must know."""
