from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sonew_perf.compare.verdicts import Estimate, Verdict, adjusted, detectable, estimate, judge


def _launches(rng: np.random.Generator, *, change: float, launches: int = 6, rounds: int = 20) -> list[list[tuple[float, float]]]:
    return [[(1.0, float(np.exp(rng.normal(math.log(change), 0.04)))) for _ in range(rounds)] for _ in range(launches)]


def test_the_estimate_is_the_median_ratio_and_its_interval_holds_the_truth_19_times_of_20() -> None:
    rng = np.random.default_rng(0)
    found = [estimate(_launches(rng, change=1.05), seed=trial) for trial in range(60)]
    inside = sum(each is not None and each.low <= 1.05 <= each.high for each in found)
    assert inside >= 55
    launches = _launches(rng, change=1.05)
    one = estimate(launches)
    assert one is not None
    assert one.ratio == pytest.approx(np.median([head for rounds in launches for _, head in rounds]), rel=1e-3)


def test_launches_that_differ_widen_the_interval_although_their_rounds_agree() -> None:
    """Two processes of one program can differ for as long as they live: a thousand rounds of one pair prove nothing."""
    steady = [[(1.0, 1.0 + offset + 1e-4 * (number % 3)) for number in range(40)] for offset in (0.0, 0.05, -0.03, 0.04, -0.02, 0.03)]
    found = estimate(steady)
    assert found is not None
    assert found.low < 1 < found.high
    assert found.p > 0.05
    assert found.high - found.low > 0.04


def test_the_p_value_is_never_smaller_than_that_of_the_launches_alone() -> None:
    rng = np.random.default_rng(1)
    launches = _launches(rng, change=1.03)
    medians = [float(np.median(np.log([head for _, head in rounds]))) for rounds in launches]
    found = estimate(launches)
    assert found is not None
    center = float(np.median(np.log([head for rounds in launches for _, head in rounds])))
    error = stats.tstd(medians) / math.sqrt(len(medians))
    assert found.p >= 2 * stats.t.sf(center / error, len(medians) - 1) - 1e-12


@pytest.mark.parametrize("launches", [[], [[(1.0, 1.0)] * 50, [(1.0, 1.0)] * 50], [[(1.0, 1.0)] * 3] * 3])
def test_too_few_launches_or_rounds_are_no_data(launches: list[list[tuple[float, float]]]) -> None:
    assert estimate(launches) is None
    assert judge(None, 0.0, 0.03) == Verdict.NO_DATA


def test_equal_times_are_the_same() -> None:
    found = estimate([[(2.0, 2.0)] * 10] * 4)
    assert found == Estimate(ratio=1.0, low=1.0, high=1.0, p=1.0, launches=4)
    assert detectable(found, tolerance=0.03, launches=4, cases=1) == pytest.approx(0.03)
    assert judge(found, 1.0, 0.03) == Verdict.SAME


@pytest.mark.parametrize(
    ("low", "ratio", "high", "p", "verdict"),
    [
        (1.02, 1.05, 1.08, 0.001, Verdict.SLOWER),
        (0.92, 0.95, 0.98, 0.001, Verdict.FASTER),
        (0.98, 1.0, 1.02, 0.9, Verdict.SAME),
        (1.005, 1.01, 1.02, 0.001, Verdict.SAME),  # surely slower, surely by less than matters
        (1.01, 1.02, 1.05, 0.001, Verdict.UNSURE),  # surely slower, perhaps by more than matters
        (0.96, 1.05, 1.14, 0.3, Verdict.UNSURE),
        (1.02, 1.05, 1.08, 0.06, Verdict.UNSURE),  # one of many cases: not significant among them
        (0.5, 1.0, 2.0, 1.0, Verdict.UNSURE),
    ],
)
def test_a_verdict_needs_significance_and_a_change_that_matters(low: float, ratio: float, high: float, p: float, verdict: Verdict) -> None:
    assert judge(Estimate(ratio=ratio, low=low, high=high, p=p, launches=6), p, 0.03) == verdict


def test_p_values_are_adjusted_as_benjamini_and_hochberg_say() -> None:
    assert adjusted([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])
    assert adjusted([]) == []
