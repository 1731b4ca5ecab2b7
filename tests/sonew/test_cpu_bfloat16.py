"""The compiled CPU backend with state, direction and parameters in bfloat16: bits of the noise, unbiased averages, unrounded directions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from sonew import rounding
from sonew.backends import reference_torch
from sonew.backends.table import Leaf
from sonew.config import Chain, Hyper
from sonew_kernels.spec import Column
from tests.sonew.cpu_groups import SMALL, Group, guarded, run_step
from tests.strategies import awkward_sizes
from tests.tolerances import assert_close

BFLOAT16 = torch.bfloat16
UNIT = 2.0**-7  # of bfloat16's last place, for values in [1, 2)


def rounded(values: torch.Tensor, leaf: Leaf, row: int) -> torch.Tensor:
    """float32 values (n,) as the formula stores them at the leaf's present count."""
    index = torch.arange(values.numel(), dtype=torch.int32)
    bits = rounding.noise(torch.tensor([leaf.seed], dtype=torch.int32), leaf.count.reshape(1), row, index)
    stored: torch.Tensor = rounding.round_to_bfloat16(torch, values, bits).to(BFLOAT16)
    return stored


@pytest.mark.parametrize("band", [0, 3, 16])
def test_the_stored_bits_are_those_of_the_formula(band: int) -> None:
    """Without memory (beta = 0) the new averages are g and g[i] g[i+k] exactly; broken, huge and tiny numbers are among them."""
    group = Group((3 * SMALL["segment"] + 77, 5), Hyper(band=band, beta1=0.0, beta2=0.0), state=BFLOAT16, seed=3)
    first = group.grads[0]
    assert first is not None
    odd = (float("nan"), float("inf"), -float("inf"), 3.39e38, -3.39e38, 1e-40, -0.0)
    for at, value in zip(range(7, 9000, 1000), odd, strict=False):
        first[at] = value
    group.run()
    for leaf, grad in zip(group.leaves, group.grads, strict=True):
        assert grad is not None
        assert_close(leaf.momentum, rounded(grad, leaf, 0), "exact")
        for k in range(band + 1):
            product = grad * torch.nn.functional.pad(grad[k:], (0, min(k, grad.numel())))
            product[max(grad.numel() - k, 0) :] = 0.0
            assert_close(leaf.stats[k], rounded(product, leaf, k + 1), "exact", context=f"stats {k}")
    assert group.intact()


def test_the_noise_sees_all_64_bits_of_an_elements_place() -> None:
    """A piece across position 2^32: beyond it the second key moves by the stride, as the formula's text says."""
    start, size = 2**32 - 50, 100
    group = Group((size,), Hyper(band=0, beta1=0.0), state=BFLOAT16)
    leaf, grad = group.leaves[0], group.grads[0]
    assert grad is not None
    group.stepper.table.rows[0, Column.START], group.stepper.table.rows[0, Column.TOTAL] = start, 2**33
    group.run()

    place = start + np.arange(size, dtype=np.int64)
    low, high = (torch.from_numpy(part.astype(np.uint32).view(np.int32)) for part in (place & 0xFFFFFFFF, place >> 32))
    seed, count = torch.tensor([leaf.seed], dtype=torch.int32), leaf.count.reshape(1)
    first = rounding.mix(seed ^ rounding.mix(count * rounding.STRIDE))
    x = low ^ first
    x = (x ^ x >> 16 & 0xFFFF) * rounding.MULTIPLIERS[0] + rounding.mix(first + rounding.STRIDE) + high * rounding.STRIDE
    x = (x ^ x >> 15 & 0x1FFFF) * rounding.MULTIPLIERS[1]
    bits = (x ^ x >> 15) & 0xFFFF
    want = rounding.round_to_bfloat16(torch, grad, bits)
    assert_close(leaf.momentum, want, "exact")
    assert not torch.equal(rounded(grad, leaf, 0), leaf.momentum)


@pytest.mark.parametrize(
    ("band", "chain", "dtype", "scratch"),
    [
        (0, 7, torch.float32, torch.float32),
        (1, "tensor", BFLOAT16, torch.float32),
        (2, 100, torch.float32, BFLOAT16),
        (4, "tensor", BFLOAT16, BFLOAT16),
        (8, 1000, torch.float16, torch.float32),
    ],
)
def test_two_steps_follow_the_reference_backend(band: int, chain: Chain, dtype: torch.dtype, scratch: torch.dtype) -> None:
    """State and parameters of awkward sizes, with the same seeds; the direction comes from the averages as they were before rounding."""
    hyper = Hyper(band=band, chain=chain, lr=0.1, eps_rel=1e-4, gamma=1e-6, stochastic_rounding=True)
    group = Group(awkward_sizes(band, SMALL["block"], SMALL["segment"]), hyper, dtype=dtype, state=BFLOAT16, scratch=scratch)
    copies = [
        dataclasses.replace(leaf, **{name: getattr(leaf, name).clone() for name in ("param", "momentum", "stats", "count")})
        for leaf in group.leaves
    ]
    slow = reference_torch.StepGroup(copies, group.plan())
    slow.set_hyper(hyper)
    before = [leaf.param.clone() for leaf in group.leaves]
    expected = [group.expected(i)[0] for i in range(len(group.sizes))]
    group.run()
    run_step(slow, group.grads)
    for i, want in enumerate(expected):
        assert_close(
            group.direction(i), want, "float32" if scratch is torch.float32 else "bfloat16 store", context=f"size {group.sizes[i]}"
        )
    fast = {name: torch.cat([getattr(leaf, name).reshape(-1) for leaf in group.leaves]) for name in ("param", "momentum", "stats")}
    wanted = {name: torch.cat([getattr(leaf, name).reshape(-1) for leaf in copies]) for name in fast}
    for name in ("momentum", "stats"):
        assert_close(fast[name], wanted[name], "bfloat16 stochastic", context=name)
    if scratch is torch.float32:
        assert_close(fast["param"], wanted["param"], "bfloat16 stochastic" if dtype is BFLOAT16 else "float16 store")
    elif dtype is torch.float32:
        start = torch.cat(before)
        assert_close(start - fast["param"], start - wanted["param"], "bfloat16 store")
    assert group.intact()


@pytest.mark.parametrize("part", [0.1, 0.5, 0.93])
def test_the_stored_value_is_right_in_the_mean(part: float) -> None:
    """Over elements, steps, seeds and rows: within four standard deviations of the value that lies `part` of the way between two others."""
    size, means = 20_000, []
    for seed in range(3):
        group = Group((size,), Hyper(band=2, beta1=0.0, beta2=0.0), state=BFLOAT16, seed=seed)
        group.grads[0] = torch.full((size,), 1.0 + part * UNIT)
        for _ in range(4):
            group.run()
            leaf = group.leaves[0]
            means += [leaf.momentum.double().mean().item(), *((leaf.stats[k, : size - k].double().mean().item()) for k in range(3))]
    value, square = (float(torch.tensor(x, dtype=torch.float32)) for x in (1 + part * UNIT, (1 + part * UNIT) ** 2))
    wanted = np.array([value, square, square, square] * 12)
    deviation = UNIT * np.sqrt(0.25 / size)
    assert np.abs(np.array(means) - wanted).max() < 4 * deviation
    assert abs((np.array(means) - wanted).mean()) < 4 * deviation / np.sqrt(48)


def test_averages_do_not_stall_below_their_last_digit() -> None:
    """A thousandth of the way per step: rounding to the nearest stops near 0.25, where half a unit in the last place is as much."""
    group = Group((4096,), Hyper(band=0, beta1=0.999), state=BFLOAT16)
    group.leaves[0].momentum.zero_()
    group.grads[0] = torch.ones(4096)
    stalled = torch.zeros((), dtype=BFLOAT16)
    for _ in range(1000):
        group.run()
        stalled = (0.999 * stalled.float() + 0.001).to(BFLOAT16)
    deviation = 2.0**-9 * np.sqrt(500 / 4096)  # at most half a unit a step, of which a thousandth is forgotten
    assert abs(group.leaves[0].momentum.double().mean().item() - (1 - 0.999**1000)) < 4 * deviation < (1 - 0.999**1000) - stalled.item()


@pytest.mark.parametrize("stochastic", [True, False])
def test_small_updates_of_bfloat16_parameters_are_not_lost(stochastic: bool) -> None:
    """Steps of a hundredth of the last place: the mean arrives where float32 would; rounded to the nearest nothing moves at all."""
    hyper = Hyper(band=0, lr=UNIT / 200, graft="none", eps=0.0, beta1=0.0, beta2=0.0, stochastic_rounding=stochastic)
    group = Group((10_000,), hyper, dtype=BFLOAT16)
    param = group.leaves[0].param
    param.fill_(1.5)
    group.grads[0] = guarded(np.ones(10_000), BFLOAT16)
    for _ in range(50):
        group.run()
    moved = 1.5 - param.double().mean().item()
    if stochastic:
        assert abs(moved - 50 * UNIT / 200) < 4 * UNIT * np.sqrt(50 / 200 / 10_000)
    else:
        assert moved == 0.0
