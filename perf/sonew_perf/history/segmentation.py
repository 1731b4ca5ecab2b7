"""Where the level of a noisy series changes: arithmetic on logarithms, so that all differences are relative."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cache, partial
from typing import Final

import numpy as np

SHORTEST: Final = 4  # points of a level
PENALTY: Final = 5.0  # of a break, times log n: squared deviations in units of the noise that it must save
NOISES: Final = 1.0  # a level differs from its neighbour by at least so many times the noise inside them,
ERRORS: Final = 4.5  # and by so many standard errors of the difference
SMALLEST: Final = 0.01  # and by so much
LEAST_NOISE: Final = 0.002  # what is quieter is taken as so noisy: a series that repeats to the last digit has no scale of its own
NEAR: Final = 16  # points on either side of a break that say how rough it is there
REACH: Final = 3  # points on either side that say what a spike is
SPIKE: Final = 3.0  # noises away from the median of these
TO_SIGMA: Final = 1.4826  # of a normal distribution: the median absolute deviation, to its standard deviation
FOUR_OF_FIVE, SIGMAS_OF_FOUR_OF_FIVE = 0.8, 1.2816  # share of a normal distribution within so many standard deviations

Segment = tuple[int, int]


def noise_between(values: np.ndarray) -> float:
    """Noise from one value to the next, at least `LEAST_NOISE`: whatever the levels are, since a step is in one difference only.

    The standard deviation if it is normal, from the median absolute deviation of the differences.
    """
    differences = np.diff(values)
    return max(TO_SIGMA * float(np.median(np.abs(differences - np.median(differences)))) / math.sqrt(2), LEAST_NOISE)


def _sigma(deviations: np.ndarray) -> float:
    """The standard deviation, if it is normal, of what deviates so far.

    From the distance that four of five values keep to: a spike or two do not count, but every third value being slow does.
    """
    return float(np.quantile(deviations, FOUR_OF_FIVE)) / SIGMAS_OF_FOUR_OF_FIVE


def noise_inside(values: np.ndarray) -> float:
    """Noise around one level."""
    return _sigma(np.abs(values - np.median(values)))


def running_median(values: np.ndarray) -> np.ndarray:
    """Of each value and its neighbours, `REACH` on either side; of fewer at the ends."""
    medians: np.ndarray = np.nanmedian(_windows(values), axis=1)
    return medians


def _windows(values: np.ndarray) -> np.ndarray:
    """(n, 2 * REACH + 1), NaN beyond the ends."""
    return np.lib.stride_tricks.sliding_window_view(np.pad(values, REACH, constant_values=np.nan), 2 * REACH + 1)


def without_spikes(values: np.ndarray, noise: float) -> np.ndarray:
    """A Hampel filter: what lies far from its neighbours becomes their median.

    Args:
        values: (n,). noise: the least that a deviation is measured by; seven points alone may agree by chance.
    """
    medians = running_median(values)
    local = TO_SIGMA * np.nanmedian(np.abs(_windows(values) - medians[:, None]), axis=1)
    kept: np.ndarray = np.where(np.abs(values - medians) > SPIKE * np.maximum(local, noise), medians, values)
    return kept


def least_squares(values: np.ndarray, penalty: float) -> list[Segment]:
    """The piecewise constant fit with the least sum of squared deviations plus `penalty` per break, by PELT."""
    import ruptures  # noqa: PLC0415  # it loads scipy, which `--help` does without

    # l2 cost by its kernel form: the same optimum as ruptures.Pelt(model="l2", jump=1), a thousand times as fast
    ends = ruptures.KernelCPD(kernel="linear", min_size=SHORTEST).fit(values[:, None]).predict(pen=penalty)
    return list(itertools.pairwise([0, *(int(end) for end in ends)]))


def _strength(values: np.ndarray, rough: np.ndarray, noise: float, left: Segment, right: Segment) -> float:
    """How far two neighbouring levels lie apart, in multiples of what it takes to be two levels.

    The noisier side decides: where a quiet machine turns into a busy one, its times spread before they shift. A short level says little of
    its own noise, so the roughness around the break counts too.
    """
    one, two = values[slice(*left)], values[slice(*right)]
    place = right[0]
    near = _sigma(rough[max(place - NEAR, 0) : place]), _sigma(rough[place : place + NEAR])
    around = max(noise_inside(one), noise_inside(two), *near, noise)
    error = around * math.sqrt(1 / len(one) + 1 / len(two))
    return abs(float(np.median(two) - np.median(one))) / max(SMALLEST, NOISES * around, ERRORS * error)


def merged(values: np.ndarray, segments: Sequence[Segment], noise: float) -> list[Segment]:
    """The segments without breaks that mean nothing, the weakest first."""
    kept, rough = list(segments), np.abs(values - running_median(values))
    strength = cache(partial(_strength, values, rough, noise))  # merging two segments leaves most breaks as they were
    while len(kept) > 1:
        strengths = [strength(left, right) for left, right in itertools.pairwise(kept)]
        weakest = int(np.argmin(strengths))
        if strengths[weakest] >= 1:
            break
        kept[weakest : weakest + 2] = [(kept[weakest][0], kept[weakest + 1][1])]
    return kept


def segments_of(values: np.ndarray) -> list[Segment]:
    """Levels of a series of logarithms.

    Args:
        values: (n,), n at least 2 * `SHORTEST`.

    Returns:
        First and behind-last index of each, in order and without gaps; `SHORTEST` points or more each.
    """
    noise = noise_between(values)
    calm = without_spikes(values, noise)
    return merged(values, least_squares(calm / noise, PENALTY * math.log(len(values))), noise)


def threshold(values: np.ndarray, segments: Sequence[Segment]) -> float:
    """The smallest relative change that can be seen in so many values, if it lies in their middle."""
    inside = np.concatenate([np.full(end - first, noise_inside(values[first:end])) for first, end in segments])
    noise = max(float(np.median(inside)), noise_between(values))
    return max(SMALLEST, NOISES * noise, ERRORS * noise * math.sqrt(4 / len(values)))
