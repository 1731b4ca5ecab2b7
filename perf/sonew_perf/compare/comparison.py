"""A comparison from its cases to its verdicts: measured, judged, and what looks changed or unsure measured again before it is said."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sonew.errors import InvalidConfigError
from sonew_autotune.settings import Exit
from sonew_perf.compare.cases import Case
from sonew_perf.compare.rounds import Launch, Timed, take_rounds
from sonew_perf.compare.verdicts import ALPHA, FEWEST_LAUNCHES, FEWEST_ROUNDS, Estimate, Verdict, adjusted, estimate, judge

CHANGED: Final = (Verdict.SLOWER, Verdict.FASTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is measured, and what matters.

    Attributes:
        launches: process pairs of the first measurement, and as many again for what is not settled. rounds: in each launch.
        tolerance: relative change that does not matter. fail_on: relative slowdown that fails the comparison.
        budget_s: of the whole comparison; past it no further launch begins.
        turns: whether the sides take turns inside a round. seed: of the orders.
    """

    launches: int = 6
    rounds: int = 20
    tolerance: float = 0.03
    fail_on: float = 0.03
    budget_s: float = 900.0
    turns: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what could judge nothing."""
        if self.launches < FEWEST_LAUNCHES or self.launches * self.rounds < FEWEST_ROUNDS:
            msg = (
                f"launches={self.launches} of rounds={self.rounds} judge nothing: at least {FEWEST_LAUNCHES} launches and {FEWEST_ROUNDS} "
                "rounds together are needed. Pass for example --launches 6 --rounds 20."
            )
            raise InvalidConfigError(msg)
        for name, value in (("tolerance", self.tolerance), ("fail-on", self.fail_on)):
            if not 0 < value < 1:
                msg = f"{name}={100 * value:g} is not allowed: it must lie between 0 and 100 percent. Pass for example --{name} 3."
                raise InvalidConfigError(msg)
        if not 0 < self.budget_s < float("inf"):
            msg = f"budget={self.budget_s} is not allowed: it must be a positive number of seconds. Pass for example --budget 600."
            raise InvalidConfigError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One case with its verdict.

    Attributes:
        timed: its times. found: the estimate, of all launches; None without data.
        p_adjusted: for the number of cases. verdict: the final one.
        confirmed: whether a second measurement agreed with the first; None where there was none.
    """

    timed: Timed
    found: Estimate | None
    p_adjusted: float
    verdict: Verdict
    confirmed: bool | None = None


def _judge_all(timed: Sequence[Timed], tolerance: float) -> list[Judged]:
    """Every case, p-values adjusted for those that have data."""
    found = [estimate(each.rounds) for each in timed]
    known = iter(adjusted([each.p for each in found if each is not None]))
    p_values = [1.0 if each is None else next(known) for each in found]
    return [
        Judged(timed=each, found=one, p_adjusted=p, verdict=judge(one, p, tolerance))
        for each, one, p in zip(timed, found, p_values, strict=True)
    ]


def _agrees(verdict: Verdict, second: Timed | None) -> bool:
    """Whether a second measurement, on its own data, shows the same change."""
    again = estimate(second.rounds) if second is not None else None
    if again is None:
        return False
    return again.p < ALPHA and (again.low > 1 if verdict == Verdict.SLOWER else again.high < 1)


def _second_look(first: Sequence[Judged], again: Mapping[str, Timed], tolerance: float) -> list[Judged]:
    """Everything judged on all data; what looks changed must show in the second measurement alone, too, or it is UNSURE."""
    seconds = [again.get(each.timed.case.name) for each in first]
    joined = [each.timed if second is None else each.timed.joined(second) for each, second in zip(first, seconds, strict=True)]
    judged = []
    for each, second in zip(_judge_all(joined, tolerance), seconds, strict=True):
        if each.verdict not in CHANGED:
            judged.append(each)
            continue
        confirmed = _agrees(each.verdict, second)
        judged.append(replace(each, confirmed=confirmed, verdict=each.verdict if confirmed else Verdict.UNSURE))
    return judged


@dataclass(slots=True)
class Progress:
    """Told what is under way: a description and the launches to come."""

    begin: Callable[[str, int], object] = field(default=lambda *_: None)
    step: Callable[[], object] = field(default=lambda: None)


def compare(cases: Sequence[Case], launch: Launch, settings: Settings, progress: Progress | None = None) -> list[Judged]:
    """Measure and judge.

    Every case is measured once; what is then not SAME is measured again in fresh launches. SLOWER and FASTER are said only where all data
    together show them and the second measurement alone does, too: chance would have to strike twice.
    """
    told = progress or Progress()
    deadline = time.monotonic() + settings.budget_s

    def measure(some: Sequence[Case], seed: int) -> list[Timed]:
        return take_rounds(
            some,
            launch,
            launches=settings.launches,
            rounds=settings.rounds,
            seed=seed,
            turns=settings.turns,
            step=told.step,
            enough=lambda: time.monotonic() > deadline,
        )

    told.begin("measuring", settings.launches)
    judged = _judge_all(measure(cases, settings.seed), settings.tolerance)
    not_settled = [each.timed.case for each in judged if each.verdict in {*CHANGED, Verdict.UNSURE}]
    again: dict[str, Timed] = {}
    if not_settled and time.monotonic() < deadline:
        told.begin(f"measuring {len(not_settled)} of {len(cases)} cases again", settings.launches)
        again = {each.case.name: each for each in measure(not_settled, settings.seed + 1)}
    return _second_look(judged, again, settings.tolerance)


def noise_floor(judged: Sequence[Judged]) -> float | None:
    """Of a comparison with itself: the largest relative difference that was seen between equals; None without data."""
    seen = [max(each.found.ratio, 1 / each.found.ratio) - 1 for each in judged if each.found is not None]
    return max(seen) if seen else None


def exit_code(judged: Sequence[Judged], fail_on: float) -> Exit:
    """1 where a confirmed slowdown is beyond `fail_on`; 3 where one cannot be ruled out; else 0."""
    slower = [each for each in judged if each.verdict == Verdict.SLOWER and each.found is not None]
    if any(each.found.ratio > 1 + fail_on for each in slower if each.found is not None):
        return Exit.CHECK_FAILED
    unknown = [each for each in judged if each.verdict == Verdict.NO_DATA]
    hidden = [each for each in judged if each.verdict == Verdict.UNSURE and each.found is not None and each.found.high > 1 + fail_on]
    return Exit.NOT_JUDGED if unknown or hidden else Exit.DONE


def entry(judged: Judged) -> dict[str, Any]:
    """A case as the record says it."""
    found, rounds = judged.found, [pair for launch in judged.timed.rounds for pair in launch]
    numbers: dict[str, Any] = dict.fromkeys(("ratio", "low", "high", "p", "p_adjusted", "detectable", "base_ms", "head_ms"))
    if found is not None:
        values = {"ratio": found.ratio, "low": found.low, "high": found.high, "p": found.p, "detectable": found.detectable}
        medians = {"base_ms": sorted(b for b, _ in rounds)[len(rounds) // 2], "head_ms": sorted(h for _, h in rounds)[len(rounds) // 2]}
        numbers |= {name: _digits(value) for name, value in {**values, **medians, "p_adjusted": judged.p_adjusted}.items()}
    return {
        "case": judged.timed.case.name,
        **judged.timed.case.identity(),
        "verdict": str(judged.verdict),
        **numbers,
        "launches": [len(launch) for launch in judged.timed.rounds],
        "ratios": [_digits(head / base) for base, head in rounds],
        "confirmed": judged.confirmed,
        "reason": judged.timed.reason,
        "plans": [facts.get("plans", []) for facts in judged.timed.facts],
    }


def _digits(value: float) -> float:
    return float(f"{value:.5g}")
