"""Stochastic rounding: noise without structure, values right in the mean, the same bits in every namespace."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sonew import rounding

COUNT = 2**18
INDEX = np.arange(COUNT, dtype=np.int32)


def key(value: int) -> np.ndarray:
    return np.array([value], dtype=np.int32)


def noise(*, seed: int = 0, tensor: int = 0, step: int = 1, row: int = 0) -> np.ndarray:
    """Noise of the first COUNT elements, float64 in [0, 1)."""
    bits = rounding.noise(key(rounding.tensor_seed(seed, tensor)), key(step), row, INDEX)
    return np.asarray(bits, dtype=np.float64) / 2**16


def to_nearest(x: np.ndarray) -> np.ndarray:
    """float32 rounded to bfloat16 values, to nearest: what stochastic rounding must not do."""
    return torch.from_numpy(x).bfloat16().float().numpy()


VARIANTS = [
    {},
    {"seed": 1},
    {"seed": 2**63},
    {"tensor": 1},
    {"tensor": 1000},
    {"step": 2},
    {"step": 10**9},
    {"row": 1},
    {"row": 2},
    {"row": 17},
    {"row": rounding.PARAM_ROW},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_noise_is_uniform_and_free_of_neighbours(variant: dict[str, int]) -> None:
    """Every bit is set half of the time, and no element knows the next ones: within 5 standard deviations."""
    x = noise(**variant)
    bits = (x * 2**16).astype(np.int64)
    for position in range(16):
        assert abs((bits >> position & 1).mean() - 0.5) < 5 * 0.5 / np.sqrt(COUNT), position
    for distance in (1, 2, 3, 16, 256, 1000):
        assert abs(np.corrcoef(x[distance:], x[:-distance])[0, 1]) < 5 / np.sqrt(COUNT), distance


def test_noises_of_different_rows_steps_tensors_and_seeds_are_independent() -> None:
    rows = np.stack([noise(**variant) for variant in VARIANTS])
    correlation = np.corrcoef(rows) - np.eye(len(VARIANTS))
    assert np.abs(correlation).max() < 5 / np.sqrt(COUNT)


@pytest.mark.parametrize(("xp", "as_numpy"), [(torch, lambda x: x.numpy()), (jnp, np.asarray)], ids=["torch", "jax"])
def test_every_namespace_gives_the_same_bits(xp: ModuleType, as_numpy: Any) -> None:
    values = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    seed, step = key(rounding.tensor_seed(7, 3)), key(12)
    for row in (0, 1, 5):
        want = rounding.noise(seed, step, row, INDEX[:4096])
        got = rounding.noise(xp.asarray(seed), xp.asarray(step), row, xp.asarray(INDEX[:4096]))
        assert np.array_equal(as_numpy(got), want)
        rounded = rounding.round_to_bfloat16(xp, xp.asarray(values), got)
        assert np.array_equal(as_numpy(rounded), rounding.round_to_bfloat16(np, values, want))


def test_rounding_goes_to_a_neighbour_and_is_right_in_the_mean() -> None:
    """Each of many values ends on one of its two neighbours; the mean error is none within 4 standard deviations."""
    values = np.random.default_rng(1).standard_normal(COUNT).astype(np.float32)
    bits = rounding.noise(key(rounding.tensor_seed(0, 0)), key(1), 0, INDEX)
    rounded = rounding.round_to_bfloat16(np, values, bits)
    assert np.array_equal(to_nearest(rounded), rounded), "not bfloat16 values"
    exponent = np.floor(np.log2(np.abs(values)))
    unit = 2.0 ** (exponent - 7)
    assert (np.abs(rounded - values) < unit).all()
    error = (rounded.astype(np.float64) - values) / unit
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(COUNT)


@pytest.mark.parametrize("value", [1.001, -3.1415927, 1e-30, 6.1e33])
def test_one_value_is_right_in_the_mean(value: float) -> None:
    """The same number everywhere; rounding to nearest misses it by many standard deviations."""
    values = np.full(COUNT, value, np.float32)
    rounded = rounding.round_to_bfloat16(np, values, rounding.noise(key(5), key(9), 1, INDEX)).astype(np.float64)
    true = float(np.float32(value))
    allowed = 4 * rounded.std() / np.sqrt(COUNT) + 2.0**-24 * abs(true)
    assert abs(rounded.mean() - true) < allowed
    assert abs(to_nearest(values).astype(np.float64).mean() - true) > allowed


def running_means(store: Any, steps: int) -> np.ndarray:
    """Means with decay 0.999 of a gradient square that is 1 in the first half of the steps and 2 in the second, stored as `store` does."""
    held = np.ones(2**12, np.float32)
    for step in range(1, steps + 1):
        fresh = np.float32(0.999) * held + np.float32(1 - 0.999) * np.float32(1 if step <= steps // 2 else 2)
        held = store(fresh, step)
    return held


def test_slow_running_means_move_and_stay_unbiased() -> None:
    """A mean that moves by less than half a unit per step: to nearest it stays where it is, stochastically it follows float32's."""

    def stochastic(fresh: np.ndarray, step: int) -> np.ndarray:
        bits = rounding.noise(key(rounding.tensor_seed(0, 0)), key(step), 1, INDEX[: fresh.size])
        rounded: np.ndarray = rounding.round_to_bfloat16(np, fresh, bits)
        return rounded

    exact, stored = running_means(lambda fresh, _: fresh, 1000), running_means(stochastic, 1000)
    assert exact[0] > 1.3
    assert abs(stored.mean() - exact[0]) < 4 * stored.std() / np.sqrt(stored.size)
    assert (running_means(lambda fresh, _: to_nearest(fresh), 1000) == 1.0).all()


def test_numbers_that_have_no_neighbours() -> None:
    """NaN and infinities stay, zeros keep their sign, and what bfloat16 holds is never moved."""
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -(2.0**-120)], np.float32)
    for bits in (0, 2**15, 2**16 - 1):
        rounded = rounding.round_to_bfloat16(np, odd, np.full(odd.size, bits, np.int32))
        np.testing.assert_array_equal(rounded, odd)
        np.testing.assert_array_equal(np.signbit(rounded[3:5]), [False, True])


def test_seeds_are_int32_and_differ() -> None:
    seeds = {rounding.tensor_seed(seed, tensor) for seed in (0, 1, 2**32, 2**64 - 1) for tensor in range(1000)}
    assert len(seeds) > 3990
    assert all(-(2**31) <= seed < 2**31 for seed in seeds)
