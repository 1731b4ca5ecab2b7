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
POWER: Final = 0.95  # with which the smallest detectable change is found


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
        detectable: the relative change that so many launches and rounds find with 95 % probability.
    """

    ratio: float
    low: float
    high: float
    p: float
    detectable: float


Launches = Sequence[Sequence[tuple[float, float]]]  # per launch, per round: (base, head) in ms


def log_ratios(launches: Launches) -> list[np.ndarray]:
    """Per launch: log of head over base, one value per round."""
    return [np.log([head / base for base, head in rounds]) for rounds in launches if rounds]


def estimate(launches: Launches, *, seed: int = 0) -> Estimate | None:
    """The estimate of a case, None with too few launches or rounds."""
    from scipy import stats  # noqa: PLC0415  # a second to load: --help must not wait for it

    logs = log_ratios(launches)
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
    seen = max(high - center, center - low)
    beyond = seen * (1 + float(stats.norm.ppf(POWER)) / float(stats.norm.ppf(1 - ALPHA / 2)))
    return Estimate(
        ratio=math.exp(center), low=math.exp(low), high=math.exp(high), p=max(by_rounds, by_launches), detectable=math.expm1(beyond)
    )


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
