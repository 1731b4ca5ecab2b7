"""`torch.amp.GradScaler` with `SONew`: scales and overflows stay on the device, and a skipped step leaves no trace."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Final

import pytest
import torch
from torch.amp import GradScaler

from sonew.config import Hyper
from sonew.torch import SONew
from tests.expected import Expected, gradients, parameters, take_step
from tests.sonew.torch_bits import assert_same, bits, every_backend, skips, unread

SHAPES: Final = ((6, 5), (7,), (), (0,), (300,))
Row = Sequence[torch.Tensor | None]


def scaler_of(scale: float = 64.0, **settings: Any) -> GradScaler:
    """A scaler whose scale is a power of two unless said otherwise, so that scaling is exact."""
    return GradScaler("cpu", init_scale=scale, **settings)


def backward(scaler: GradScaler | None, params: Sequence[torch.Tensor], row: Row) -> None:
    """Gradients of sum(p g): the row itself, times the scale."""
    for param in params:
        param.grad = None
    products = [(param * grad).sum().float() for param, grad in zip(params, row, strict=True) if grad is not None]
    loss = torch.stack(products).sum()
    (loss if scaler is None else scaler.scale(loss)).backward()


def scaled_step(scaler: GradScaler, optimizer: torch.optim.Optimizer, params: Sequence[torch.Tensor], row: Row, **more: Any) -> None:
    """One iteration of the loop that torch documents."""
    backward(scaler, params, row)
    scaler.step(optimizer, **more)
    scaler.update()


def poisoned(row: Sequence[torch.Tensor], i: int, value: float = float("inf")) -> list[torch.Tensor]:
    """The row with a bad last element in tensor i."""
    bad = [grad.clone() for grad in row]
    bad[i].view(-1)[-1] = value
    return bad


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("settings", [{}, {"maximize": True, "band": 2}, {"decoupled_weight_decay": False}], ids=str)
def test_a_scaled_step_has_the_bits_of_the_plain_one(backend: str, dtype: torch.dtype, settings: dict[str, Any]) -> None:
    """The scale doubles every second step; one tensor has no gradient at times."""
    common: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.1, "backend": backend} | settings
    params, twins = parameters(*SHAPES, dtype=dtype), parameters(*SHAPES, dtype=dtype)
    optimizer, plain = SONew(params, **common), SONew(twins, **common)
    scaler = scaler_of(growth_interval=2)
    for count, row in enumerate(gradients(params, band=1)[:5]):
        shown = [None if (i, count) == (1, 2) else grad for i, grad in enumerate(row)]
        scaled_step(scaler, optimizer, params, shown)
        take_step(plain, twins, shown)
        assert_same(bits(optimizer, params), bits(plain, twins))
    assert scaler.get_scale() == 256.0
    assert not hasattr(optimizer, "found_inf")


@every_backend
def test_any_scale_is_divided_out(backend: str) -> None:
    params = parameters(*SHAPES)
    optimizer, expected = SONew(params, lr=0.1, eps=1e-2, backend=backend), Expected(params, Hyper(lr=0.1, eps=1e-2))
    scaler = scaler_of(1000.0)
    for row in gradients(params, band=1)[:4]:
        scaled_step(scaler, optimizer, params, row)
        expected.step(row)
    expected.check(optimizer, params)


@every_backend
def test_gradients_below_float16_survive_through_the_scale(backend: str) -> None:
    """2^-30 is nothing in float16 and 2^-14 is something: they are divided in float32, not in their own type."""
    params = parameters((40,), dtype=torch.float16)
    optimizer, expected = SONew(params, backend=backend, eps=1e-20), Expected(params, Hyper(eps=1e-20))
    true = [torch.where(torch.arange(40) % 3 == 0, 2.0**-30, -(2.0**-29))]
    params[0].grad = (true[0] * 2.0**16).half()
    optimizer.grad_scale = torch.tensor(2.0**16)  # type: ignore[attr-defined]  # what the scaler sets
    optimizer.step()
    expected.step(true)
    assert params[0].grad.abs().min() > 0
    expected.check(optimizer, params)


@every_backend
@pytest.mark.parametrize(("i", "value"), [(0, float("inf")), (2, float("nan")), (4, float("-inf"))])
@pytest.mark.parametrize("at", [0, 2])
def test_an_overflow_leaves_no_trace(backend: str, i: int, value: float, at: int) -> None:
    """Nothing moves, the scale backs off, the skip is counted, and the steps after it are those of a training without it."""
    common: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.1, "backend": backend}
    params, twins = parameters(*SHAPES), parameters(*SHAPES)
    halves: list[list[dict[str, Any]]] = [[{"params": x[:3]}, {"params": x[3:], "band": 2}] for x in (params, twins)]
    optimizer, plain = (SONew(groups, **common) for groups in halves)
    scaler = scaler_of()
    for count, row in enumerate(gradients(params, band=1)[:4]):
        if count == at:
            before = bits(optimizer, params)
            for _ in range(2):
                scaled_step(scaler, optimizer, params, poisoned(row, i, value))
                assert_same(bits(optimizer, params), before)
        scaled_step(scaler, optimizer, params, row)
        take_step(plain, twins, row)
        assert_same(bits(optimizer, params), bits(plain, twins))
    assert scaler.get_scale() == 16.0
    assert (skips(optimizer), skips(plain)) == (2, 0)


@every_backend
@pytest.mark.parametrize("pass_norm", [False, True])
def test_unscaled_clipped_steps(backend: str, pass_norm: bool) -> None:
    """`unscale_`, `clip_grad_norm_`, `step`: the bits of clipping plain gradients; an overflow is skipped here too."""
    params, twins = parameters(*SHAPES), parameters(*SHAPES)
    optimizer, plain = SONew(params, lr=0.1, backend=backend), SONew(twins, lr=0.1, backend=backend)
    scaler = scaler_of(growth_interval=1)
    rows = gradients(params, band=1)[:4]
    for count, row in enumerate(rows):
        backward(scaler, params, poisoned(row, 4) if count == 2 else row)
        scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(params, 0.5)
        scaler.step(optimizer, **({"total_norm": norm} if pass_norm else {}))
        scaler.update()
        if count != 2:
            backward(None, twins, row)
            torch.nn.utils.clip_grad_norm_(twins, 0.5)
            plain.step()
        assert_same(bits(optimizer, params), bits(plain, twins))
    assert (scaler.get_scale(), skips(optimizer)) == (256.0, 1)


@every_backend
def test_no_value_reaches_the_host(backend: str) -> None:
    """Neither for the scale nor for the overflow: a GPU's host would wait. A step of AdamW as it comes does read."""
    params, twins = parameters(*SHAPES), parameters(*SHAPES)
    optimizer, plain = SONew(params, lr=0.1, backend=backend), SONew(twins, lr=0.1, backend=backend)
    adam, scaler = torch.optim.AdamW(params, fused=False), scaler_of()
    rows = gradients(params, band=1)[:4]
    for count, row in enumerate(rows):
        backward(scaler, params, poisoned(row, 0) if count == 2 else row)
        if count == 0:
            scaler.step(optimizer)  # plans are made
        else:
            with unread():
                scaler.step(optimizer)
        scaler.update()
        if count != 2:
            take_step(plain, twins, row)
    assert_same(bits(optimizer, params), bits(plain, twins))
    with unread(), pytest.raises(AssertionError, match="hands a tensor's value to the host"):
        scaler.step(adam)


@every_backend
def test_one_scaler_for_two_optimizers(backend: str) -> None:
    """Only the one whose gradients overflowed sits out."""
    first, second = parameters((6, 5)), parameters((7,))
    one, other = SONew(first, backend=backend), SONew(second, backend=backend)
    scaler = scaler_of()
    row = gradients([*first, *second], band=1)[0]
    backward(scaler, [*first, *second], poisoned(row, 1))
    scaler.step(one)
    scaler.step(other)
    scaler.update()
    assert one.state[first[0]]["count"].item() == 1
    assert torch.equal(second[0], parameters((7,))[0])
    assert (skips(one), skips(other)) == (0, 1)


@every_backend
@pytest.mark.parametrize("changing", [False, True])
def test_a_plain_step_follows_a_scaled_and_a_skipped_one(backend: str, changing: bool) -> None:
    """No scale and no skip is left behind, also where settings change in between."""
    params, twins = parameters(*SHAPES), parameters(*SHAPES)
    optimizer, plain = SONew(params, lr=0.1, backend=backend), SONew(twins, lr=0.1, backend=backend)
    scaler = scaler_of()
    rows = gradients(params, band=1)
    kinds = ("plain", "scaled", "plain", "skipped", "plain", "scaled", "skipped", "scaled")
    for count, (kind, row) in enumerate(zip(kinds, rows, strict=False)):
        for each in (optimizer, plain) if changing else ():
            each.param_groups[0]["lr"] = 0.1 / (1 + count // 3)
            each.param_groups[0]["maximize"] = count in (1, 4, 5)
        if kind == "plain":
            take_step(optimizer, params, row)
        else:
            scaled_step(scaler, optimizer, params, row if kind == "scaled" else poisoned(row, 1))
        if kind != "skipped":
            take_step(plain, twins, row)
        assert_same(bits(optimizer, params), bits(plain, twins))


def flags() -> dict[str, tuple[torch.Tensor, bool]]:
    """What `found_inf` may be, and whether it skips: the scaler adds up one per device."""
    return {
        "0.0": (torch.tensor(0.0), False),
        "1.0": (torch.tensor(1.0), True),
        "2.0": (torch.tensor(2.0), True),
        "(1,)": (torch.ones(1), True),
        "float64": (torch.tensor(1.0, dtype=torch.float64), True),
        "tiny": (torch.tensor(1e-45), True),
        "nan": (torch.tensor(float("nan")), True),
    }


@every_backend
@pytest.mark.parametrize(("flag", "skipped"), flags().values(), ids=flags())
def test_found_inf_in_every_form(backend: str, flag: torch.Tensor, skipped: bool) -> None:
    params = parameters((6,))
    optimizer: Any = SONew(params, backend=backend)
    optimizer.found_inf, optimizer.grad_scale = flag, None
    before = bits(optimizer, params)
    take_step(optimizer, params, [torch.ones(6)])
    changed = not torch.equal(bits(optimizer, params)["param 0"], before["param 0"])
    assert (changed, skips(optimizer)) == (not skipped, int(skipped))


@every_backend
def test_scales_multiply_and_a_disabled_scaler_hands_arguments_on(backend: str) -> None:
    """A scale that the user set counts beside the scaler's."""
    params, twins = parameters((6, 5)), parameters((6, 5))
    optimizer, plain = SONew(params, lr=0.1, backend=backend), SONew(twins, lr=0.1, backend=backend)
    row = gradients(params, band=1)[0]
    optimizer.grad_scale = torch.tensor(4.0)  # type: ignore[attr-defined]  # as torch documents it
    scaled_step(scaler_of(), optimizer, params, [4.0 * grad for grad in row])
    take_step(plain, twins, row)
    assert_same(bits(optimizer, params), bits(plain, twins))
    scaled_step(GradScaler("cpu", enabled=False), optimizer, params, row, total_norm=torch.tensor(float("inf")))
    assert_same(bits(optimizer, params), bits(plain, twins))


@every_backend
def test_an_autocast_loop_learns_alike_with_and_without_the_scaler(backend: str) -> None:
    """A small network in bfloat16 on float32 parameters: powers of two change no bit on the way."""
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    model = copy.deepcopy(plain)
    inputs = torch.randn(64, 6)
    targets = inputs.sum(1, keepdim=True).sin()
    ends: list[tuple[float, float]] = []
    for network, scaler in ((plain, scaler_of(1.0, enabled=False)), (model, scaler_of(1024.0, growth_interval=5))):
        optimizer = SONew(network.parameters(), lr=0.02, backend=backend)
        losses = []
        for _ in range(25):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = torch.nn.functional.mse_loss(network(inputs), targets)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item())
        ends.append((losses[0], losses[-1]))
    assert ends[0] == ends[1]
    assert ends[0][1] < 0.8 * ends[0][0], "nothing is learned"
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True))


@every_backend
def test_fused_false_leaves_unscaling_to_the_scaler(backend: str) -> None:
    """As trainers expect that clip by themselves: gradients come unscaled, and steps that overflowed never begin."""
    params, twins = parameters(*SHAPES), parameters(*SHAPES)
    optimizer, plain = SONew(params, lr=0.1, fused=False, backend=backend), SONew(twins, lr=0.1, backend=backend)
    scaler = scaler_of()
    first, second, third = gradients(params, band=1)[:3]
    for row, good in ((first, True), (poisoned(second, 0), False), (third, True)):
        scaled_step(scaler, optimizer, params, row)
        assert not hasattr(optimizer, "grad_scale")
        if good:
            assert all(torch.equal(param.grad, grad) for param, grad in zip(params, row, strict=True) if param.grad is not None)
            take_step(plain, twins, row)
        assert_same(bits(optimizer, params), bits(plain, twins))
    assert scaler.get_scale() == 32.0


def test_torch_is_told_who_unscales() -> None:
    optimizer = SONew(parameters((3,)))
    assert optimizer._step_supports_amp_scaling
    optimizer.add_param_group({"params": parameters((3,)), "fused": False})
    assert not optimizer._step_supports_amp_scaling
