"""From times to verdicts: log ratios of the rounds, an interval that knows of launches, and control of how many cases are asked at once.

Two sources of chance are kept apart. Rounds within a launch scatter; launches as a whole lie off by what their two processes got for
memory. The interval is the wider one of two: the bootstrap of the median over all rounds, and Student's t over the launches' medians,
which has few degrees of freedom and says so by its width. The p-value likewise is the larger of Wilcoxon's and the t test's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

ALPHA: Final = 0.05
FEWEST_LAUNCHES: Final = 3
FEWEST_ROUNDS: Final = 12  # of all launches together
RESAMPLES: Final = 2000
ROOM: Final = 2.4  # times an interval's reach, for a change that the interval excludes 19 times of 20: its own width varies, too


class Verdict(StrEnum):
    """What is known of a case: head against base."""

    SLOWER = "SLOWER"
    FASTER = "FASTER"
    SAME = "SAME"
    UNSURE = "UNSURE"
    NO_DATA = "NO-DATA"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """How many times the base's time the head takes.

    Attributes:
        ratio, low, high: median and 95 % interval.
        p: of the hypothesis that nothing changed.
        launches: behind it.
    """

    ratio: float
    low: float
    high: float
    p: float
    launches: int

    @property
    def reach(self) -> float:
        """Half the interval's width, as a logarithm; of its longer side."""
        return max(math.log(self.high / self.ratio), math.log(self.ratio / self.low))


Launches = Sequence[Sequence[tuple[float, float]]]  # per launch, per round: (base, head) in ms


def estimate(launches: Launches, *, seed: int = 0) -> Estimate | None:
    """The estimate of a case, None with too few launches or rounds."""
    from scipy import stats  # noqa: PLC0415  # a second to load: --help must not wait for it

    logs = [np.log([head / base for base, head in rounds]) for rounds in launches if rounds]
    every = np.concatenate(logs) if logs else np.empty(0)
    if len(logs) < FEWEST_LAUNCHES or len(every) < FEWEST_ROUNDS:
        return None
    medians = np.array([np.median(values) for values in logs])
    center = float(np.median(every))
    drawn = stats.bootstrap(
        (every,), np.median, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(seed), confidence_level=1 - ALPHA
    )
    degrees = len(medians) - 1
    error = float(np.std(medians, ddof=1)) / math.sqrt(len(medians))
    reach = float(stats.t.ppf(1 - ALPHA / 2, degrees)) * error
    rounds_low, rounds_high = (float(value) for value in drawn.confidence_interval)
    low, high = min(rounds_low, center - reach), max(rounds_high, center + reach)
    by_rounds = float(stats.wilcoxon(every).pvalue) if np.any(every) else 1.0
    by_launches = float(2 * stats.t.sf(abs(center) / error, degrees)) if error > 0 else (0.0 if center else 1.0)
    ratio, at_least, at_most = (math.exp(value) for value in (center, low, high))
    return Estimate(ratio=ratio, low=at_least, high=at_most, p=max(by_rounds, by_launches), launches=len(logs))


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's: of the cases called changed, at most 5 % are false ones on average."""
    from scipy import stats  # noqa: PLC0415  # as above

    return [float(p) for p in stats.false_discovery_control(p_values)] if p_values else []


def judge(found: Estimate | None, p: float, tolerance: float) -> Verdict:
    """The verdict of one case.

    Args:
        found: its estimate. p: adjusted for the number of cases.
        tolerance: relative change that does not matter, 0.03 for 3 %.
    """
    if found is None:
        return Verdict.NO_DATA
    within = 1 / (1 + tolerance), 1 + tolerance
    if within[0] <= found.low and found.high <= within[1]:
        return Verdict.SAME
    if p < ALPHA and found.low > 1 and found.ratio > within[1]:
        return Verdict.SLOWER
    if p < ALPHA and found.high < 1 and found.ratio < within[0]:
        return Verdict.FASTER
    return Verdict.UNSURE


def detectable(found: Estimate, *, tolerance: float, launches: int, cases: int) -> float:
    """The smallest slowdown that would be called SLOWER 19 times of 20, with noise such as this case's.

    It must pass what a verdict asks for, each with room for its own chance: the estimate lies beyond the tolerance, and is significant
    should this be the only changed one of all cases; the second measurement alone is significant, too. Checked by simulation.

    Args:
        found: the estimate. tolerance: as for the verdict. launches: of one measurement. cases: that are judged together.

    Returns:
        The relative change.
    """
    from scipy import stats  # noqa: PLC0415  # as above

    second = found.reach * math.sqrt(found.launches / launches)
    both = second / math.sqrt(2)
    degrees = max(2 * launches - 1, 1)
    among_all = float(stats.t.ppf(1 - ALPHA / (2 * cases), degrees) / stats.t.ppf(1 - ALPHA / 2, degrees))
    return math.expm1(max(math.log1p(tolerance) + second, both * (1 + among_all), ROOM * second))
