from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from sonew_perf.history import segmentation


def _cost(values: np.ndarray, ends: tuple[int, ...]) -> float:
    return sum(float(((part := values[first:end]) - part.mean()) @ (part - part.mean())) for first, end in itertools.pairwise((0, *ends)))


def _exhaustive(values: np.ndarray, penalty: float, most: int) -> list[tuple[int, int]]:
    """The best fit with up to `most` breaks, by trying all of them."""
    count = len(values)
    candidates = [
        (*inner, count)
        for breaks in range(most + 1)
        for inner in itertools.combinations(range(segmentation.SHORTEST, count), breaks)
        if all(end - first >= segmentation.SHORTEST for first, end in itertools.pairwise((0, *inner, count)))
    ]
    best = min(candidates, key=lambda ends: _cost(values, ends) + penalty * (len(ends) - 1))
    return list(itertools.pairwise((0, *best)))


@pytest.mark.parametrize("seed", range(8))
def test_the_fit_is_the_best_of_all_fits_tried_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(22)
    for place in rng.integers(4, 18, 2):
        values[place:] += 3 * rng.standard_normal()
    found = segmentation.least_squares(values, 6.0)
    assert found == _exhaustive(values, 6.0, 3)


def test_one_break_lies_where_two_means_fit_best() -> None:
    rng = np.random.default_rng(3)
    values = 0.01 * rng.standard_normal(60)
    values[37:] += 0.05
    best = min(range(4, 57), key=lambda place: _cost(values, (place, 60)))
    assert segmentation.segments_of(values) == [(0, best), (best, 60)]
    assert abs(best - 37) <= 1


def test_noise_between_values_is_the_noise_whatever_the_levels() -> None:
    noise = 0.02 * np.random.default_rng(0).standard_normal(400)
    alone = segmentation.noise_between(noise)
    assert alone == pytest.approx(0.02, rel=0.15)
    assert segmentation.noise_between(noise + np.where(np.arange(400) < 200, 0.0, math.log(10))) == pytest.approx(alone, rel=0.02)


def test_a_series_that_repeats_itself_has_the_least_noise() -> None:
    assert segmentation.noise_between(np.zeros(20)) == segmentation.LEAST_NOISE


def test_spikes_go_and_steps_stay() -> None:
    values = 0.001 * np.random.default_rng(1).standard_normal(40)
    values[20:] += 0.1
    spiked = values.copy()
    spiked[[3, 11, 12, 30, 39]] += 0.3
    calm = segmentation.without_spikes(spiked, segmentation.noise_between(spiked))
    assert np.max(np.abs(calm - values)) < 0.01
    np.testing.assert_array_equal(np.delete(calm, [3, 11, 12, 30, 39]), np.delete(values, [3, 11, 12, 30, 39]))


def test_a_machine_that_becomes_noisy_has_not_changed_its_level() -> None:
    """Eight times the noise from the middle on; 40 series, of which one may be misjudged."""
    noise = np.where(np.arange(60) < 30, 0.01, 0.08)
    misjudged = [seed for seed in range(40) if len(segmentation.segments_of(noise * np.random.default_rng(seed).standard_normal(60))) > 1]
    assert len(misjudged) <= 1


def test_the_threshold_is_what_a_series_of_that_noise_and_length_shows() -> None:
    """In the middle a step of half of it is hardly ever found, and one half as great again nearly always."""
    found = dict.fromkeys((0.5, 1.6), 0)
    for seed in range(40):
        values = 0.01 * np.random.default_rng(seed).standard_normal(60)
        limit = segmentation.threshold(values, [(0, 60)])
        for share in found:
            stepped = values + np.where(np.arange(60) < 30, 0, share * limit)
            found[share] += len(segmentation.segments_of(stepped)) > 1
    assert found[0.5] <= 4
    assert found[1.6] >= 36
