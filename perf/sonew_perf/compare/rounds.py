"""The schedule: launch after launch both sides' processes are started anew, and in each the cases are timed in shuffled rounds.

What differs between two processes of the same program (where its memory lies, which pages are huge) stays the same as long as they
live, and can be worth some percent: it looks like a change and is none. So a comparison does not only repeat rounds, it repeats launches.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from sonew_perf.compare.cases import Case
from sonew_perf.errors import MeasurementError

BASE, HEAD = 0, 1
ORDERS = ((BASE, HEAD, HEAD, BASE), (HEAD, BASE, BASE, HEAD))  # each side twice, so that a steady drift cancels


class Timer(Protocol):
    """What a launch is: both sides ready to be timed (`processes.Pair`)."""

    def prepare(self, case: Case) -> tuple[int, list[dict[str, Any]]]:
        """Build a case: calls per sample, and what each side says of it."""
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
        facts: what each side said of it. reason: why there are no (further) times; "" where all is well.
    """

    case: Case
    rounds: list[list[tuple[float, float]]] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)
    reason: str = ""

    def joined(self, other: Timed) -> Timed:
        """The launches of both."""
        return Timed(self.case, [*self.rounds, *other.rounds], self.facts or other.facts, self.reason or other.reason)


def _prepared(timer: Timer, cases: Sequence[Case], found: dict[str, Timed]) -> dict[str, int]:
    """Calls per sample of the cases that both sides can build."""
    calls = {}
    for case in cases:
        timed = found[case.name]
        if timed.reason:
            continue
        try:
            calls[case.name], timed.facts = timer.prepare(case)
        except MeasurementError as error:
            timed.reason = str(error)
    return calls


def _one_launch(timer: Timer, cases: Sequence[Case], found: dict[str, Timed], rounds: int, order: random.Random, *, turns: bool) -> None:
    calls = _prepared(timer, cases, found)
    names = list(calls)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    sides = ORDERS if turns else ((BASE, BASE, HEAD, HEAD),)
    for _ in range(rounds):
        order.shuffle(names)
        for name in names:
            if found[name].reason:
                continue
            spent = [0.0, 0.0]
            try:
                for side in order.choice(sides):
                    spent[side] += timer.sample(name, side, calls[name]) / 2
            except MeasurementError as error:
                found[name].reason = str(error)
                continue
            times[name].append((spent[BASE], spent[HEAD]))
    for name, pairs in times.items():
        if pairs:
            found[name].rounds.append(pairs)


def take_rounds(
    cases: Sequence[Case],
    launch: Launch,
    *,
    launches: int,
    rounds: int,
    seed: int = 0,
    turns: bool = True,
    step: Callable[[], object] = lambda: None,
    enough: Callable[[], bool] = lambda: False,
) -> list[Timed]:
    """Time every case in so many launches of so many rounds.

    Args:
        cases: what is timed. launch: starts both sides for a framework.
        launches, rounds: how often. seed: of the orders.
        turns: False times the base's two samples before the head's in each round: for what an exchange of processes disturbs.
        step: called after each launch. enough: asked before each but the first two; True ends early.

    Returns:
        One result per case, in their order. A case that a side cannot build or time has a reason, the others go on.
    """
    found = {case.name: Timed(case) for case in cases}
    order = random.Random(seed)  # noqa: S311  # an order, not a secret
    for number in range(launches):
        if number >= 2 and enough():
            break
        for framework in dict.fromkeys(case.framework for case in cases):
            mine = [case for case in cases if case.framework == framework and not found[case.name].reason]
            if not mine:
                continue
            try:
                with launch(framework) as timer:
                    _one_launch(timer, mine, found, rounds, order, turns=turns)
            except MeasurementError as error:
                for case in mine:
                    found[case.name].reason = found[case.name].reason or str(error)
        step()
    return list(found.values())
