"""How good the static model is: its order and its first choice beside recorded times. Pure: scores and times in, numbers out.

Candidates that share a kernel are not independent, so that p-values and intervals are on the bold side.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

FEWEST: Final = 5  # configurations below which an order says nothing
Z95: Final = 1.959963984540054
Config = tuple[tuple[str, int], ...]


def config_key(config: Mapping[str, int]) -> Config:
    """A configuration as it can be looked up."""
    return tuple(sorted(config.items()))


@dataclass(frozen=True, slots=True)
class Correlation:
    """A rank correlation with its 95 % interval, and the probability of one as large where there is none."""

    value: float
    low: float
    high: float
    p_value: float


def _interval(value: float, error: float) -> tuple[float, float]:
    """By Fisher's transformation; the errors are those of Bonett and Wright (Psychometrika 65, 2000)."""
    if abs(value) >= 1:
        return value, value
    return math.tanh(math.atanh(value) - Z95 * error), math.tanh(math.atanh(value) + Z95 * error)


def correlations(scores: Sequence[float], times: Sequence[float]) -> tuple[Correlation, Correlation] | None:
    """(Spearman, Kendall) of two sequences of one length; None where there are too few, or one of them does not vary."""
    count = len(scores)
    if count < FEWEST or len(set(scores)) == 1 or len(set(times)) == 1:
        return None
    from scipy.stats import kendalltau, spearmanr  # noqa: PLC0415  # a second to load

    rho, tau = spearmanr(scores, times), kendalltau(scores, times)
    spearman, kendall = round(float(rho.statistic), 12), round(float(tau.statistic), 12)  # 1 is 1
    errors = (math.sqrt((1 + spearman**2 / 2) / (count - 3)), math.sqrt(0.437 / (count - 4)))
    return (
        Correlation(spearman, *_interval(spearman, errors[0]), float(rho.pvalue)),
        Correlation(kendall, *_interval(kendall, errors[1]), float(tau.pvalue)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """The model beside one problem's recorded times. A regret is the time above the best recorded one, as a share of that.

    Attributes:
        measured: configurations with a time. failed: recorded ones that failed. unknown: measured, but they do not compile here.
        pruned: measured ones that the model ruled out; the regret of the fastest of them is `pruned_regret`: 0 if it was the best.
        spearman, kendall: of scores and times, None where they say nothing.
        first: the model's first choice among what was recorded. first_regret: infinite if it failed.
        kept_regret: of what would be stored (`candidates.choose`). default_regret: of the default.
        median_regret: of the median configuration, what a blind choice costs.
    """

    measured: int
    failed: int
    unknown: int
    pruned: int
    pruned_regret: float | None
    spearman: Correlation | None
    kendall: Correlation | None
    first: Mapping[str, int]
    first_regret: float
    kept_regret: float
    default_regret: float
    median_regret: float


def validate(
    ratios: Mapping[Config, float],
    scores: Mapping[Config, float],
    pruned: frozenset[Config],
    *,
    default: Mapping[str, int],
    kept: Mapping[str, int],
) -> Validation | None:
    """Compare; None where the default or every other configuration lacks a time or a score.

    Args:
        ratios: recorded times, as ratios to the default's or in any unit; infinite where a configuration failed.
        scores: the model's, smaller is faster; of those that were not pruned.
        pruned: what it ruled out.
        default: the configuration that runs when nothing was tuned. kept: what would be stored.
    """
    measured = {config: ratio for config, ratio in ratios.items() if math.isfinite(ratio)}
    candidates = [config for config in ratios if config in scores]
    usual = config_key(default)
    if usual not in measured or usual not in scores or len(candidates) < 2:
        return None
    best = min(measured.values())

    def regret(config: Config) -> float:
        return ratios[config] / best - 1

    judged = [config for config in candidates if config in measured]
    found = correlations([scores[config] for config in judged], [measured[config] for config in judged])
    first = min(candidates, key=lambda config: scores[config])
    ruled_out = [regret(config) for config in measured if config in pruned]
    return Validation(
        measured=len(measured),
        failed=len(ratios) - len(measured),
        unknown=sum(config not in scores and config not in pruned for config in measured),
        pruned=len(ruled_out),
        pruned_regret=min(ruled_out, default=None),
        spearman=found[0] if found else None,
        kendall=found[1] if found else None,
        first=dict(first),
        first_regret=regret(first),
        kept_regret=regret(config_key(kept)),
        default_regret=regret(usual),
        median_regret=statistics.median(measured.values()) / best - 1,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A measured entry of a store: what its challenger's time was to the default's, and what the model says of the two."""

    measured: float
    predicted: float

    @property
    def agrees(self) -> bool:
        """Whether the model has the same one in front."""
        return (self.measured < 1) == (self.predicted < 1)
