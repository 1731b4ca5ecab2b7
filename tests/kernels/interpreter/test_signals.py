"""What a step learns on the device, with the GPU's kernels: signs, loss scales, skips, counters; the host reads nothing."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pytest
import torch
from torch.amp import GradScaler

from sonew import reference
from sonew.config import Hyper, chain_length
from sonew.torch import SONew
from tests.expected import Expected, gradients, parameters, take_step
from tests.kernels.interpreter.capture import World
from tests.sonew.torch_bits import as_bits, assert_same, bits, skips, unread

SHAPES: Final = ((19, 7), (), (0,), (5,))
COMMON: Final[dict[str, Any]] = {"backend": "triton", "tuning": "off", "lr": 0.1, "weight_decay": 0.1, "eps": 1e-2}
INF: Final = float("inf")


def pair(dtype: torch.dtype = torch.float32, **settings: Any) -> tuple[SONew, list[torch.nn.Parameter], SONew, list[torch.nn.Parameter]]:
    """An optimizer with these settings and one without, over twin parameters."""
    params, twins = parameters(*SHAPES, dtype=dtype), parameters(*SHAPES, dtype=dtype)
    return SONew(params, **COMMON | settings), params, SONew(twins, **COMMON), twins


def test_maximizing_is_minimizing_along_negated_gradients() -> None:
    ours, params, plain, twins = pair(maximize=True)
    for row in gradients(params, band=1)[:2]:
        take_step(ours, params, row)
        take_step(plain, twins, [-grad for grad in row])
        assert_same(bits(ours, params), bits(plain, twins))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scaled_and_skipped_steps_and_plain_ones_in_turn(dtype: torch.dtype) -> None:
    """With the bits of plain steps alone; a skipped step moves nothing, neither state nor counts nor parameters."""
    ours, params, plain, twins = pair(dtype)
    scaler = GradScaler("cpu", init_scale=64.0, growth_interval=1)
    rows = gradients(params, band=1)
    for kind, row in zip(("skipped", "scaled", "plain", "skipped", "scaled"), rows, strict=False):
        if kind == "plain":
            take_step(ours, params, row)
        else:
            scale = scaler.scale(torch.ones(()))
            for param, grad in zip(params, row, strict=True):
                param.grad = grad * scale.to(dtype)
            if kind == "skipped" and params[3].grad is not None:
                params[3].grad[-1] = INF
            before = bits(ours, params)
            scaler.step(ours)
            scaler.update()
            if kind == "skipped":
                assert_same(bits(ours, params), before)
        if kind != "skipped":
            take_step(plain, twins, row)
            assert_same(bits(ours, params), bits(plain, twins))
    assert (skips(ours), scaler.get_scale()) == (2, 64.0)


def test_poisoned_steps_leave_no_trace() -> None:
    """By the guard or by the norm; large finite gradients are stepped."""
    ours, params, plain, twins = pair(skip_nonfinite=True, counters=True)
    rows = gradients(params, band=1)
    for count, row in enumerate(rows[:3]):
        before = bits(ours, params)
        bad = [grad.clone() for grad in row]
        bad[(0, 1, 3)[count]].view(-1)[-1] = (float("nan"), INF, -INF)[count]
        take_step(ours, params, bad)
        assert_same(bits(ours, params), before)
        take_step(ours, params, row)
        take_step(plain, twins, row)
        assert_same(bits(ours, params), bits(plain, twins))
    ours.step(total_norm=torch.tensor(INF))
    assert_same(bits(ours, params), bits(plain, twins))
    loud = [*rows[3][:3], torch.full((5,), 3e38)]
    take_step(ours, params, loud)
    take_step(plain, twins, loud)
    assert_same(bits(ours, params), bits(plain, twins))
    assert skips(ours) == 4


def test_coupled_decay() -> None:
    """Like the reference's, with a sign and a scale on top."""
    params = parameters((19, 7), (33,))
    settings: dict[str, Any] = {"maximize": True, "decoupled_weight_decay": False}
    optimizer: Any = SONew(params, **COMMON | settings)
    expected = Expected(params, Hyper(lr=0.1, weight_decay=0.1, eps=1e-2, maximize=True, decoupled_weight_decay=False))
    for row in gradients(params, band=1)[:2]:
        optimizer.grad_scale = torch.tensor(8.0)
        take_step(optimizer, params, [8.0 * grad for grad in row])
        expected.step(row)
    expected.check(optimizer, params)


@pytest.mark.parametrize(("dtype", "settings"), [
    (torch.float32, {}), (torch.float16, {}), (torch.bfloat16, {"lr": torch.tensor(0.0)}), (torch.bfloat16, {"stochastic_rounding": True}),
])  # fmt: skip
def test_a_rate_of_zero_changes_no_bit(dtype: torch.dtype, settings: dict[str, Any]) -> None:
    """Of -0, infinities and NaNs with payloads too, beside a direction that is not finite."""
    integers = torch.int32 if dtype is torch.float32 else torch.int16
    strange = {torch.float32: (0x7FC01234, 0x7F800001), torch.bfloat16: (0x7FC1, 0x7F81), torch.float16: (0x7E01, 0x7C01)}[dtype]
    odd = torch.cat([torch.tensor(strange, dtype=integers).view(dtype), torch.tensor([-0.0, INF, -INF, 1.5], dtype=dtype)])
    params = [torch.nn.Parameter(torch.cat([odd, torch.ones(50, dtype=dtype)])), torch.nn.Parameter(odd.clone())]
    before = [as_bits(param) for param in params]
    optimizer = SONew(params, **COMMON | {"lr": 0.0} | settings)
    take_step(optimizer, params, [torch.ones_like(param) for param in params])
    take_step(optimizer, params, [torch.full_like(param, INF) for param in params])
    assert [i for i, (param, old) in enumerate(zip(params, before, strict=True)) if not torch.equal(as_bits(param), old)] == []
    assert optimizer.state[params[0]]["count"].item() == 2


def test_the_host_reads_nothing(world: World) -> None:
    """With scale, overflow flag, norm, guard and counters at once; launches do nothing here, as the interpreter's read."""
    ours: Any
    ours, params, *_ = pair(skip_nonfinite=True, counters=True)
    rows = gradients(params, band=1)
    take_step(ours, params, rows[0])
    for param, grad in zip(params, rows[1], strict=True):
        param.grad = grad
    ours.grad_scale, ours.found_inf = torch.tensor(2.0), torch.tensor(0.0)
    world.deaf = True
    with unread():
        ours.step(total_norm=torch.tensor(1.0))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_columns_that_fall_back_are_counted() -> None:
    """As many as the reference drops, over steps, and none in skipped ones."""
    params = parameters((40, 7), (33,))
    hyper = Hyper(lr=0.1, gamma=0.6, eps=1e-4)
    optimizer = SONew(params, **COMMON | {"gamma": 0.6, "eps": 1e-4, "counters": True, "skip_nonfinite": True})
    fallen = [0, 0]
    for count, row in enumerate(gradients(params, band=1)[:3]):
        take_step(optimizer, params, row)
        take_step(optimizer, params, [torch.full_like(grad, INF) for grad in row])
        for i, param in enumerate(params):
            stats = optimizer.state[param]["stats"].reshape(2, -1).numpy()
            links = reference.chain_links(np, stats[0], 1, chain_length("tensor", tuple(param.shape)))
            corrected = stats / reference.correction(np, np.float32(count + 1), reference.decay_numbers(hyper).log_beta2)
            fallen[i] += int(reference.fallen_columns(np, corrected, links, hyper).sum())
    told = optimizer.read_counters()
    assert [tensor.fallen for tensor in told.tensors] == fallen
    assert all(0 < tensor.fallen < 3 * tensor.columns for tensor in told.tensors), "all or none fall, so the test is blind"
    assert told.skipped == 3
