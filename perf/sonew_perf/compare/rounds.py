"""The schedule: launch after launch both sides' processes are started anew, and in each the cases are timed in shuffled rounds.

Where a program's memory lies stays the same as long as it lives, and is worth some percent of a step (2 to 5 of 65536 elements on an AMD
EPYC): it looks like a change and is none. So every round puts the tensors elsewhere, and a comparison does not only repeat rounds, it
repeats launches.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from sonew_perf.compare.cases import Case
from sonew_perf.errors import MeasurementError, ProcessGoneError

BASE, HEAD = 0, 1
IN_TURNS: Final = ((BASE, HEAD, HEAD, BASE), (HEAD, BASE, BASE, HEAD))  # each side twice, so that a steady drift cancels
IN_SEQUENCE: Final = ((BASE, BASE, HEAD, HEAD),)
INTERRUPTED: Final = "interrupted"


class Timer(Protocol):
    """What a launch is: both sides ready to be timed (`processes.Pair`)."""

    def prepare(self, case: Case) -> tuple[int, list[dict[str, Any]]]:
        """Build a case: calls per sample, and what each side says of it."""
        ...

    def renew(self, case: str) -> None:
        """Put a prepared case's tensors elsewhere in memory."""
        ...

    def sample(self, case: str, side: int, calls: int) -> float:
        """Milliseconds per call."""
        ...


Launch = Callable[[str], AbstractContextManager[Timer]]  # from the framework


@dataclass(slots=True)
class Timed:
    """Times of one case.

    Attributes:
        case: what was timed.
        rounds: per launch, per round: (base, head) in ms, each the mean of two samples.
        facts: what each side said of it. reason: why it cannot be judged, whatever was timed; "" where all is well.
    """

    case: Case
    rounds: list[list[tuple[float, float]]] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)
    reason: str = ""

    def joined(self, other: Timed) -> Timed:
        """The launches of both."""
        return Timed(self.case, [*self.rounds, *other.rounds], self.facts or other.facts, self.reason or other.reason)


@dataclass(slots=True)
class Limits:
    """When to stop.

    Attributes:
        deadline: `time.monotonic()` after which no round begins. most_bytes: of the cases that are held at once; None: all.
        stopped: why nothing more is measured, "" as long as something may be.
    """

    deadline: float
    most_bytes: int | None = None
    stopped: str = ""

    def over(self) -> bool:
        """Whether nothing more may be measured."""
        if not self.stopped and time.monotonic() > self.deadline:
            self.stopped = "the budget ended"
        return bool(self.stopped)


def batches(cases: Sequence[Case], most_bytes: int | None) -> list[list[Case]]:
    """The cases in lots that are held in memory at once: one framework each, within `most_bytes` as long as a single case is."""
    lots: list[list[Case]] = []
    for case in sorted(cases, key=lambda one: one.framework, reverse=True):
        last = lots[-1] if lots else []
        fits = most_bytes is None or sum(one.held_bytes for one in [*last, case]) <= most_bytes
        if last and last[0].framework == case.framework and fits:
            last.append(case)
        else:
            lots.append([case])
    return lots


def _too_large(case: Case, most_bytes: int | None) -> str:
    if most_bytes is None or case.held_bytes <= most_bytes:
        return ""
    return f"not enough memory: a side takes about {case.held_bytes / 2**30:.1f} GiB, {most_bytes / 2**30:.1f} GiB are free for it"


@dataclass(frozen=True, slots=True)
class _Schedule:
    rounds: int
    orders: tuple[tuple[int, ...], ...]
    shuffler: random.Random
    limits: Limits


def _prepared(timer: Timer, lot: Sequence[Timed]) -> dict[str, int]:
    """Calls per sample of the cases that both sides can build."""
    calls = {}
    for timed in lot:
        try:
            calls[timed.case.name], timed.facts = timer.prepare(timed.case)
        except MeasurementError as error:
            timed.reason = str(error)
            if isinstance(error, ProcessGoneError):
                raise
    return calls


def _one_launch(timer: Timer, lot: Sequence[Timed], schedule: _Schedule) -> None:
    """Rounds of one launch. A case that cannot be timed has a reason; where its process is gone with it, the launch ends for all.

    Raises:
        ProcessGoneError: a process is gone; what the launch had timed is dropped.
    """
    calls = _prepared(timer, lot)
    mine = [timed for timed in lot if timed.case.name in calls]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(schedule.rounds):
        schedule.shuffler.shuffle(mine)
        for timed in mine:
            if timed.reason or schedule.limits.over():
                continue
            name, spent = timed.case.name, [0.0, 0.0]
            try:
                timer.renew(name)
                for side in schedule.shuffler.choice(schedule.orders):
                    spent[side] += timer.sample(name, side, calls[name]) / 2
            except MeasurementError as error:
                timed.reason = str(error)
                if isinstance(error, ProcessGoneError):
                    raise
                continue
            times[name].append((spent[BASE], spent[HEAD]))
    for timed in mine:
        if times[timed.case.name]:
            timed.rounds.append(times[timed.case.name])


def _launched(launch: Launch, lot: Sequence[Timed], schedule: _Schedule) -> None:
    """One launch of a lot; a case whose process goes is left out, and the others are launched again without it."""
    while rest := [timed for timed in lot if not timed.reason]:
        try:
            with launch(rest[0].case.framework) as timer:
                _one_launch(timer, rest, schedule)
        except ProcessGoneError as error:
            if not any(timed.reason for timed in rest):  # it went before a case was asked for
                for timed in rest:
                    timed.reason = str(error)
        except MeasurementError as error:
            for timed in rest:
                timed.reason = timed.reason or str(error)
        else:
            return


def take_rounds(
    cases: Sequence[Case],
    launch: Launch,
    limits: Limits,
    *,
    launches: int,
    rounds: int,
    seed: int = 0,
    turns: bool = True,
    step: Callable[[], object] = lambda: None,
) -> list[Timed]:
    """Time every case in so many launches of so many rounds, or in as many as the limits allow.

    Args:
        cases: what is timed. launch: starts both sides for a framework. limits: when to stop; says afterwards whether and why it stopped.
        launches, rounds: how often. seed: of the orders.
        turns: False times the base's two samples before the head's in each round: for what an exchange of processes disturbs.
        step: called after each launch.

    Returns:
        One result per case, in their order. A case that a side cannot build or time has a reason, the others go on. Ctrl-C ends the
        measurement, not the program: what was timed until then is returned.
    """
    found = {case.name: Timed(case, reason=_too_large(case, limits.most_bytes)) for case in cases}
    shuffler = random.Random(seed)  # noqa: S311  # an order, not a secret
    schedule = _Schedule(rounds, IN_TURNS if turns else IN_SEQUENCE, shuffler, limits)
    try:
        for _ in range(launches):
            for lot in batches(cases, limits.most_bytes):
                if limits.over():
                    break
                _launched(launch, [found[case.name] for case in lot], schedule)
            step()
    except KeyboardInterrupt:
        limits.stopped = INTERRUPTED
    return list(found.values())
