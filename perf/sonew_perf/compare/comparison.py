"""A comparison from its cases to its verdicts: measured, judged, and what looks changed or unsure measured again before it is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from sonew.errors import InvalidConfigError
from sonew_autotune.settings import Exit
from sonew_perf.compare.cases import Case
from sonew_perf.compare.rounds import Launch, Limits, Timed, take_rounds
from sonew_perf.compare.verdicts import ALPHA, FEWEST_LAUNCHES, FEWEST_ROUNDS, Estimate, Verdict, adjusted, detectable, estimate, judge

CHANGED: Final = (Verdict.SLOWER, Verdict.FASTER)
ONCE_ONLY: Final = "it looked changed, and there was no second measurement"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is measured, and what matters.

    Attributes:
        launches: process pairs of the first measurement, and as many again for what is not settled. rounds: in each launch.
        tolerance: relative change that does not matter. fail_on: relative slowdown that fails the comparison, no smaller one.
        turns: whether the sides take turns inside a round. seed: of the orders.
    """

    launches: int = 6
    rounds: int = 30
    tolerance: float = 0.03
    fail_on: float = 0.03
    turns: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what could judge nothing."""
        if self.launches < FEWEST_LAUNCHES or self.launches * self.rounds < FEWEST_ROUNDS:
            msg = (
                f"launches={self.launches} of rounds={self.rounds} judge nothing: at least {FEWEST_LAUNCHES} launches and {FEWEST_ROUNDS} "
                "rounds together are needed. Pass for example --launches 6 --rounds 30."
            )
            raise InvalidConfigError(msg)
        for name, value in (("tolerance", self.tolerance), ("fail-on", self.fail_on)):
            if not 0 < value < 1:
                msg = f"{name}={100 * value:g} is not allowed: it must lie between 0 and 100 percent. Pass for example --{name} 3."
                raise InvalidConfigError(msg)
        if self.fail_on < self.tolerance:
            msg = (
                f"fail-on={100 * self.fail_on:g} is not allowed with tolerance={100 * self.tolerance:g}: what does not matter cannot fail. "
                f"Pass --tolerance {100 * self.fail_on:g}, too."
            )
            raise InvalidConfigError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One case with its verdict.

    Attributes:
        timed: its times. found: the estimate, of all launches; None without data.
        p_adjusted: for the number of cases. detectable: `verdicts.detectable`, None without data.
        verdict: the final one. confirmed: whether a second measurement agreed with a change; None where there was none of either.
    """

    timed: Timed
    found: Estimate | None
    p_adjusted: float
    detectable: float | None
    verdict: Verdict
    confirmed: bool | None = None


def _judge_all(timed: Sequence[Timed], settings: Settings) -> list[Judged]:
    """Every case, p-values adjusted for those that have data. One that could not be timed to the end is NO-DATA, whatever its times."""
    found = [estimate(each.rounds) for each in timed]
    known = iter(adjusted([each.p for each in found if each is not None]))
    p_values = [1.0 if each is None else next(known) for each in found]
    cases = sum(each is not None for each in found)
    return [
        Judged(
            timed=each,
            found=one,
            p_adjusted=p,
            detectable=None if one is None else detectable(one, tolerance=settings.tolerance, launches=settings.launches, cases=cases),
            verdict=Verdict.NO_DATA if each.reason else judge(one, p, settings.tolerance),
        )
        for each, one, p in zip(timed, found, p_values, strict=True)
    ]


def _agrees(verdict: Verdict, second: Timed) -> bool | None:
    """Whether a second measurement, on its own data, shows the same change; None where it has too few of them."""
    again = estimate(second.rounds)
    if again is None:
        return None
    return again.p < ALPHA and (again.low > 1 if verdict == Verdict.SLOWER else again.high < 1)


def _second_look(first: Sequence[Judged], again: Mapping[str, Timed], settings: Settings) -> list[Judged]:
    """Everything judged on all data; what looks changed must show in the second measurement alone, too, or it is UNSURE."""
    seconds = [again.get(each.timed.case.name) for each in first]
    joined = [each.timed if second is None else each.timed.joined(second) for each, second in zip(first, seconds, strict=True)]
    judged = []
    for each, second in zip(_judge_all(joined, settings), seconds, strict=True):
        if each.verdict not in CHANGED:
            judged.append(each)
            continue
        confirmed = None if second is None else _agrees(each.verdict, second)
        timed = replace(each.timed, reason=ONCE_ONLY) if confirmed is None else each.timed
        judged.append(replace(each, timed=timed, confirmed=confirmed, verdict=each.verdict if confirmed else Verdict.UNSURE))
    return judged


@dataclass(slots=True)
class Progress:
    """Told what is under way: a description and the launches to come."""

    begin: Callable[[str, int], object] = field(default=lambda *_: None)
    step: Callable[[], object] = field(default=lambda: None)


def compare(cases: Sequence[Case], launch: Launch, settings: Settings, limits: Limits, progress: Progress | None = None) -> list[Judged]:
    """Measure and judge.

    Every case is measured once; what is then not SAME is measured again in fresh launches. SLOWER and FASTER are said only where all data
    together show them and the second measurement alone does, too: chance would have to strike twice.

    Args:
        cases: what is compared. launch: starts both sides. settings: how much. limits: when to stop; says afterwards why, if it did.
        progress: told.
    """
    told = progress or Progress()

    def measure(some: Sequence[Case], seed: int) -> list[Timed]:
        return take_rounds(
            some,
            launch,
            limits,
            launches=settings.launches,
            rounds=settings.rounds,
            seed=seed,
            turns=settings.turns,
            step=told.step,
        )

    told.begin("measuring", settings.launches)
    timed = measure(cases, settings.seed)
    for each in timed:
        if limits.stopped and not each.reason and estimate(each.rounds) is None:
            each.reason = f"{limits.stopped} after {len(each.rounds)} launches"
    judged = _judge_all(timed, settings)
    not_settled = [each.timed.case for each in judged if each.verdict in {*CHANGED, Verdict.UNSURE}]
    again: dict[str, Timed] = {}
    if not_settled and not limits.over():
        told.begin(f"measuring {len(not_settled)} of {len(cases)} cases again", settings.launches)
        again = {each.case.name: each for each in measure(not_settled, settings.seed + 1)}
    return _second_look(judged, again, settings)


def noise_floor(judged: Sequence[Judged]) -> float | None:
    """Of a comparison with itself: the largest relative difference that was seen between equals; None without data."""
    seen = [max(each.found.ratio, 1 / each.found.ratio) - 1 for each in judged if each.found is not None]
    return max(seen) if seen else None


def exit_code(judged: Sequence[Judged], fail_on: float) -> Exit:
    """1 where a confirmed slowdown is beyond `fail_on`; 3 where one cannot be ruled out; else 0."""
    most = 1 + fail_on
    known = [(each.verdict, each.found) for each in judged if each.found is not None]
    if any(verdict == Verdict.SLOWER and found.ratio > most for verdict, found in known):
        return Exit.CHECK_FAILED
    hidden = any(verdict in {Verdict.SLOWER, Verdict.UNSURE} and found.high > most for verdict, found in known)
    return Exit.NOT_JUDGED if hidden or any(each.verdict == Verdict.NO_DATA for each in judged) else Exit.DONE
