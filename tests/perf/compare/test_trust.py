"""Whether verdicts can be trusted, on noise that two equal processes of this project really had (`recordings/equals.py`)."""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import AbstractContextManager

from sonew_perf.compare.cases import EFFORTS, chosen_cases
from sonew_perf.compare.comparison import Settings, compare
from sonew_perf.compare.rounds import Limits, Timer
from sonew_perf.compare.verdicts import Verdict
from tests.perf.compare.played import Both, Played, recorded

CASES = chosen_cases(EFFORTS["quick"])
DECISIONS = 60


def _verdicts(change: float) -> Counter[Verdict]:
    """Verdicts of comparisons that play recorded launches, drawn anew for each and the sides swapped at random; the head is slowed down."""
    launches, rng, found = recorded(), random.Random(0), Counter[Verdict]()
    settings = Settings(launches=6, rounds=len(launches[0][CASES[0].name][0]) // 2)
    while found.total() < DECISIONS:
        drawn = iter(rng.sample(launches, 2 * settings.launches))

        def launch(_framework: str, drawn: object = drawn) -> AbstractContextManager[Timer]:
            sides: dict[str, Both] = next(drawn)  # type: ignore[call-overload]  # an iterator
            played = {}
            for case in CASES:
                both = list(sides[case.name])
                rng.shuffle(both)
                played[case.name] = (list(both[0]), list(both[1]))
            return Played(played, {case.name: change for case in CASES}).entered()

        limits = Limits(time.monotonic() + 3600)
        found.update(judged.verdict for judged in compare(CASES, launch, settings, limits))
    return found


def test_equals_are_called_changed_at_most_once_in_20() -> None:
    found = _verdicts(1.0)
    assert found[Verdict.SLOWER] + found[Verdict.FASTER] <= found.total() / 20


def test_a_slowdown_of_5_percent_is_called_slower_at_least_19_times_of_20() -> None:
    found = _verdicts(1.05)
    assert found[Verdict.SLOWER] >= found.total() * 19 / 20
