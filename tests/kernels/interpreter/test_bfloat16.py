"""bfloat16 state, direction and parameters: exactly the float32 kernels' values, rounded by `sonew.rounding` where they are stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sonew import rounding
from sonew.config import Hyper
from tests.kernels.interpreter.harness import Group
from tests.kernels.interpreter.joined import Joined, Part
from tests.kernels.interpreter.test_hazards import equal

BF16 = torch.bfloat16


def twins(band: int, sizes: tuple[int, ...], **settings: Any) -> tuple[Group, Group]:
    """Two groups with the same values, which bfloat16 holds: one keeps its state in float32, the other as the settings say."""
    hyper = Hyper(band=band, lr=0.1, weight_decay=0.1, stochastic_rounding="param_dtype" in settings)
    narrow = Group(sizes, hyper, **settings)
    wide = Group(sizes, hyper, param_dtype=settings.get("param_dtype", torch.float32))
    for a, b in zip(wide.leaves, narrow.leaves, strict=True):
        for name in ("momentum", "stats", "param"):
            getattr(a, name).copy_(getattr(b, name))
    return wide, narrow


def rounded(values: torch.Tensor, seed: int, step: int, row: int) -> torch.Tensor:
    """What must be stored for float32 values."""
    key = [np.array([number], dtype=np.int32) for number in (seed, step)]
    bits = rounding.noise(key[0], key[1], row, np.arange(values.numel(), dtype=np.int32))
    return torch.from_numpy(rounding.round_to_bfloat16(np, values.numpy(), bits)).bfloat16()


@pytest.mark.parametrize(("band", "sizes"), [(0, (130,)), (1, (260, 5, 0, 1)), (4, (300,)), (16, (120, 17))])
def test_state_is_the_float32_state_rounded_and_the_direction_does_not_feel_it(band: int, sizes: tuple[int, ...]) -> None:
    """Momentum and every row of the statistics, bit for bit; the direction of the step has the bits of float32 state."""
    wide, narrow = twins(band, sizes, state_dtype=BF16)
    wide.run()
    narrow.run()
    for i, (a, b) in enumerate(zip(wide.leaves, narrow.leaves, strict=True)):
        step = int(b.count)
        assert torch.equal(b.momentum, rounded(a.momentum, b.seed, step, 0))
        for k in range(band + 1):
            assert torch.equal(b.stats[k], rounded(a.stats[k], b.seed, step, k + 1)), k
        assert np.array_equal(wide.direction(i), narrow.direction(i))
        assert torch.equal(a.param, b.param)
    assert not torch.equal(narrow.leaves[0].stats, wide.leaves[0].stats.bfloat16()), "as if rounded to nearest"
    assert narrow.intact()


def test_direction_buffer_is_rounded_to_nearest_after_its_norm_was_taken() -> None:
    wide, narrow = twins(2, (300, 7), direction_dtype=BF16)
    wide.run()
    narrow.run()
    assert narrow.stepper.table.direction.dtype is BF16
    for i in range(2):
        assert np.array_equal(narrow.direction(i), torch.from_numpy(wide.direction(i)).bfloat16().float().numpy())
    assert torch.equal(wide.stepper.table.scales, narrow.stepper.table.scales)


@pytest.mark.parametrize("direction", [torch.float32, BF16])
def test_parameters_are_written_stochastically_on_request(direction: torch.dtype) -> None:
    """The float32 step of a bfloat16 parameter, rounded with the parameter's own noise; full tiles and tails."""
    _, group = twins(1, (600, 33), param_dtype=BF16, direction_dtype=direction)
    before = [leaf.param.float() for leaf in group.leaves]
    group.run()
    for i, leaf in enumerate(group.leaves):
        scale = group.stepper.table.scales[i]
        u = (torch.from_numpy(group.direction(i)) * scale) * scale
        stepped = torch.from_numpy(np.float64(-np.float32(0.1)) * fma(np.float32(0.1), before[i], u) + before[i].double().numpy()).float()
        assert torch.equal(leaf.param, rounded(stepped, leaf.seed, int(leaf.count), rounding.PARAM_ROW))
        assert not torch.equal(leaf.param, stepped.bfloat16())


def fma(a: np.float32, x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """a x + y rounded once to float32, as float64: products of float32 are exact there."""
    fused: np.ndarray = (np.float64(a) * x.double().numpy() + y.double().numpy()).astype(np.float32).astype(np.float64)
    return fused


@pytest.mark.parametrize("block", [64, 256])
def test_stored_bits_depend_on_no_tile(block: int) -> None:
    groups = [Group((300, 5, 260), Hyper(band=2), block=size, state_dtype=BF16) for size in (128, block)]
    for group in groups:
        group.run()
    assert equal(*(tuple(t.view(torch.int16) for leaf in g.leaves for t in (leaf.momentum, leaf.stats)) for g in groups))
    assert all(group.intact() for group in groups)


def test_the_noise_follows_the_position_in_the_tensor_beyond_32_bits() -> None:
    """A piece that starts at 60 draws the noise of elements 60 and on, and one that starts at 60 past a multiple of 2^32 another one."""
    band, length = 1, 60
    group = Group((length,), Hyper(band=band), state_dtype=BF16)
    leaf, step = group.leaves[0], int(group.leaves[0].count) + 1
    exact: list[torch.Tensor] = []
    stored: list[torch.Tensor] = []
    for number in (0, 1, 1 + 2**30):
        for kind in (torch.float32, BF16):
            part = Part(
                grad=group.grads[0],
                momentum=leaf.momentum.to(kind),
                stats=leaf.stats.to(kind),
                chain=2**60,
                seed=leaf.seed,
                total=2**60,
                number=number,
                outside=torch.zeros(2, band + 3, band),
            )
            joined = Joined([part], group.stepper.table.hyper, step, pieces=True)
            joined.run()
            (stored if kind is BF16 else exact).append(joined.outcome(0)[0])
    assert torch.equal(exact[1], exact[2])
    key = [np.array([number], dtype=np.int32) for number in (leaf.seed, step)]
    bits = rounding.noise(key[0], key[1], 0, np.arange(length, 2 * length, dtype=np.int32))
    want = torch.from_numpy(rounding.round_to_bfloat16(np, exact[1].numpy(), bits)).bfloat16()
    assert [torch.equal(found, want) for found in stored] == [False, True, False]


def test_another_seed_gives_other_stored_bits_and_nothing_else() -> None:
    groups = [Group((300,), Hyper(band=2), state_dtype=BF16) for _ in range(2)]
    groups[1].leaves[0] = replace(groups[1].leaves[0], seed=99)
    groups[1].stepper = groups[1].make_stepper()
    for group in groups:
        group.run()
    assert not torch.equal(groups[0].leaves[0].stats, groups[1].leaves[0].stats)
    assert np.array_equal(groups[0].direction(0), groups[1].direction(0))
