"""Poisoned steps: one bad number in one gradient, or a bad norm, and nothing moves; the next steps are those of a training without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import pytest
import torch
from torch.nn import utils

from sonew import InvalidConfigError
from sonew.config import Hyper
from sonew.torch import SONew
from tests.expected import Expected, gradients, parameters, take_step
from tests.sonew.torch_bits import assert_same, bits, every_backend, skips, unread

NAN, INF = float("nan"), float("inf")
SHAPES: Final = ((300, 7), (), (0,), (5, 3), (11,), (1,))
DTYPES: Final = (torch.float32, torch.float32, torch.float32, torch.bfloat16, torch.float16, torch.float32)
FIRST_GROUP: Final = 3  # tensors in it
POISONS: Final = [(0, 0, NAN), (0, -1, INF), (0, 1234, -INF), (1, 0, NAN), (3, 7, INF), (3, -1, NAN), (4, 5, -INF), (5, 0, NAN)]


def model() -> list[torch.nn.Parameter]:
    """Tensors of three types, a scalar and an empty one among them."""
    return [parameters(shape, dtype=dtype, seed=i)[0] for i, (shape, dtype) in enumerate(zip(SHAPES, DTYPES, strict=True))]


def optimizer_of(params: Sequence[torch.Tensor], backend: str, **settings: Any) -> SONew:
    """Two groups, the second with a band of its own."""
    groups: list[dict[str, Any]] = [{"params": list(params[:FIRST_GROUP])}, {"params": list(params[FIRST_GROUP:]), "band": 2}]
    chosen: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.1, "eps": 1e-2, "backend": backend} | settings
    return SONew(groups, **chosen)


def expected_of(params: Sequence[torch.Tensor]) -> Expected:
    """What the reference makes of it."""
    bands = [1] * FIRST_GROUP + [2] * (len(params) - FIRST_GROUP)
    return Expected(params, *(Hyper(lr=0.1, weight_decay=0.1, eps=1e-2, band=band) for band in bands))


def poisoned(row: Sequence[torch.Tensor], i: int, at: int, value: float) -> list[torch.Tensor]:
    """The row with a bad element."""
    bad = [grad.clone() for grad in row]
    bad[i].view(-1)[at] = value
    return bad


@every_backend
@pytest.mark.parametrize(("i", "at", "value"), POISONS)
def test_a_poisoned_step_leaves_no_trace(backend: str, i: int, at: int, value: float) -> None:
    """In the first step, between steps, twice in a row: no bit moves, and the clean steps are the reference's without them."""
    params = model()
    optimizer, expected = optimizer_of(params, backend, skip_nonfinite=True), expected_of(params)
    for count, row in enumerate(gradients(params, band=1, seed=3)[:4]):  # a seed whose scalar momentum does not cancel
        before = bits(optimizer, params)
        for _ in range((1, 0, 2, 0)[count]):
            take_step(optimizer, params, poisoned(row, i, at, value))
            assert_same(bits(optimizer, params), before)
        take_step(optimizer, params, row)
        expected.step(row)
    expected.check(optimizer, params)
    assert skips(optimizer) == 3


@every_backend
def test_the_guard_changes_no_bit_of_clean_steps(backend: str) -> None:
    """Beside one without it, which saw no poison; also with tensors that have no gradient, and settings that change."""
    params, twins = model(), model()
    guarded, plain = optimizer_of(params, backend, skip_nonfinite=True, counters=True), optimizer_of(twins, backend)
    for count, row in enumerate(gradients(params, band=1)[:5]):
        shown = [None if count == i else grad for i, grad in enumerate(row)]
        for optimizer in (guarded, plain):
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + count)
        if count in (1, 3):
            take_step(guarded, params, poisoned(row, 5, 0, INF))
        take_step(guarded, params, shown)
        take_step(plain, twins, shown)
        assert_same(bits(guarded, params), bits(plain, twins))
    assert (skips(guarded), skips(plain)) == (2, 0)


def loud() -> dict[str, tuple[int, torch.Tensor]]:
    """(tensor, gradient): large, and finite."""
    signs = 1.0 - 2.0 * (torch.arange(2100).reshape(300, 7) % 2)
    return {
        "1e38": (0, 1e38 * signs),
        "largest float32": (0, torch.full((300, 7), torch.finfo(torch.float32).max)),
        "largest bfloat16": (3, torch.full((5, 3), torch.finfo(torch.bfloat16).max, dtype=torch.bfloat16)),
        "largest float16": (4, torch.full((11,), torch.finfo(torch.float16).min, dtype=torch.float16)),
    }


@every_backend
@pytest.mark.parametrize(("i", "grad"), loud().values(), ids=loud())
def test_large_finite_gradients_are_no_poison(backend: str, i: int, grad: torch.Tensor) -> None:
    """Their squares and sums overflow, which the state shows as it does without the guard."""
    params, twins = model(), model()
    guarded, plain = optimizer_of(params, backend, skip_nonfinite=True), optimizer_of(twins, backend)
    row = gradients(params, band=1)[0]
    row[i] = grad
    take_step(guarded, params, row)
    take_step(plain, twins, row)
    assert_same(bits(guarded, params), bits(plain, twins))
    assert (guarded.state[params[0]]["count"].item(), skips(guarded)) == (1, 0)


def test_large_float64_gradients_are_no_poison() -> None:
    """Also behind a float32 tensor, in whose type they would be infinite."""
    params = [*parameters((3,)), *parameters((4,), dtype=torch.float64)]
    optimizer = SONew(params, backend="reference", state_dtype=torch.float64, skip_nonfinite=True)
    take_step(optimizer, params, [torch.ones(3), torch.full((4,), 1e300, dtype=torch.float64)])
    take_step(optimizer, params, [torch.ones(3), torch.full((4,), NAN, dtype=torch.float64)])
    assert (optimizer.state[params[1]]["count"].item(), skips(optimizer)) == (1, 1)


@every_backend
@pytest.mark.parametrize("norm", [3.0, torch.ones(3), None], ids=["number", "vector", "none"])
def test_a_total_norm_is_a_tensor_of_one_element(backend: str, norm: Any) -> None:
    """Anything else is refused before anything moves; None is no norm."""
    params = parameters((6,))
    optimizer = SONew(params, backend=backend)
    params[0].grad = torch.ones(6)
    before = bits(optimizer, params)
    if norm is None:
        optimizer.step(total_norm=norm)
        return
    with pytest.raises(InvalidConfigError, match="total_norm"):
        optimizer.step(total_norm=norm)
    assert_same(bits(optimizer, params), before)


@every_backend
@pytest.mark.parametrize("where", ["guarded", "unguarded"])
def test_one_guarded_group_guards_the_step(backend: str, where: str) -> None:
    """Its gradients are looked at and the whole step is skipped; those of the other group are its own business, as without a guard."""
    params = model()
    optimizer = optimizer_of(params, backend)
    optimizer.param_groups[1]["skip_nonfinite"] = True
    row = gradients(params, band=1)[0]
    before = bits(optimizer, params)
    take_step(optimizer, params, poisoned(row, *((3, 2) if where == "guarded" else (0, 2)), NAN))
    if where == "guarded":
        assert_same(bits(optimizer, params), before)
    else:
        assert optimizer.state[params[4]]["count"].item() == optimizer.state[params[0]]["count"].item() == 1
        assert params[0].isnan().all()
        assert params[4].isfinite().all()
    assert skips(optimizer) == (1 if where == "guarded" else 0)


@every_backend
def test_the_guard_is_asked_for(backend: str) -> None:
    params = model()
    optimizer = optimizer_of(params, backend)
    row = gradients(params, band=1)[0]
    take_step(optimizer, params, poisoned(row, 0, 0, NAN))
    assert optimizer.state[params[0]]["count"].item() == 1
    optimizer.param_groups[0]["skip_nonfinite"] = True  # from the next step on
    take_step(optimizer, params, poisoned(row, 0, 0, NAN))
    assert (optimizer.state[params[0]]["count"].item(), skips(optimizer)) == (1, 1)


@every_backend
def test_strided_gradients_are_looked_at_where_they_count(backend: str) -> None:
    """Poison between the elements of a strided gradient is no part of it; in its elements it is."""
    params = parameters((4, 5))
    optimizer = SONew(params, backend=backend, skip_nonfinite=True)
    wide = torch.full((5, 8), NAN)
    wide[:, ::2] = 1.0
    params[0].grad = wide[:, ::2].t()
    optimizer.step()
    assert (optimizer.state[params[0]]["count"].item(), skips(optimizer)) == (1, 0)
    params[0].grad = torch._neg_view(wide[:, 1::2].t())
    optimizer.step()
    assert (optimizer.state[params[0]]["count"].item(), skips(optimizer)) == (1, 1)


def norms() -> dict[str, tuple[torch.Tensor, bool]]:
    """Total norms and whether they skip."""
    values = {"nan": (NAN, True), "inf": (INF, True), "-inf": (-INF, True), "3": (3.0, False), "0": (0.0, False)}
    return {
        f"{name} {str(dtype)[6:]}": (torch.tensor(value, dtype=dtype), skipped)
        for name, (value, skipped) in values.items()
        for dtype in ((torch.float32, torch.float64, torch.bfloat16) if name in ("nan", "3") else (torch.float32,))
    } | {"(1,)": (torch.tensor([INF]), True), "largest float64": (torch.tensor(1e300, dtype=torch.float64), False)}


@every_backend
@pytest.mark.parametrize(("norm", "skipped"), norms().values(), ids=norms())
def test_a_total_norm_decides_without_the_guard(backend: str, norm: torch.Tensor, skipped: bool) -> None:
    params, twins = parameters((6, 5), (7,)), parameters((6, 5), (7,))
    optimizer, plain = SONew(params, backend=backend), SONew(twins, backend=backend)
    row = gradients(params, band=1)[0]
    for param, twin, grad in zip(params, twins, row, strict=True):
        param.grad, twin.grad = grad, grad.clone()
    optimizer.step(total_norm=norm)
    if not skipped:
        plain.step()
    assert_same(bits(optimizer, params), bits(plain, twins))
    assert skips(optimizer) == int(skipped)


def clippers() -> dict[str, Callable[[Sequence[torch.Tensor]], torch.Tensor]]:
    """torch's ways to clip, and the total norm that they know."""

    def in_two(params: Sequence[torch.Tensor]) -> torch.Tensor:
        norm = utils.get_total_norm([param.grad for param in params if param.grad is not None])
        utils.clip_grads_with_norm_(params, 0.5, norm)
        return norm

    return {
        "clip_grad_norm_": lambda params: utils.clip_grad_norm_(params, 0.5),
        "largest": lambda params: utils.clip_grad_norm_(params, 0.5, norm_type=INF),
        "foreach": lambda params: utils.clip_grad_norm_(params, 0.5, foreach=True),
        "clip_grads_with_norm_": in_two,
    }


@every_backend
@pytest.mark.parametrize("clip", clippers().values(), ids=clippers())
@pytest.mark.parametrize("value", [NAN, INF])
def test_clipping_hands_its_norm_over(backend: str, clip: Callable[[Sequence[torch.Tensor]], torch.Tensor], value: float) -> None:
    """A bad norm spoils every gradient that it scales; the step is skipped without another look at them."""
    params, twins = parameters((6, 5), (7,)), parameters((6, 5), (7,))
    optimizer, plain = SONew(params, lr=0.1, backend=backend), SONew(twins, lr=0.1, backend=backend)
    for count, row in enumerate(gradients(params, band=1)[:4]):
        if count in (0, 2):
            for param, grad in zip(params, poisoned(row, 0, 3, value), strict=True):
                param.grad = grad
            optimizer.step(total_norm=clip(params))
        for param, twin, grad in zip(params, twins, row, strict=True):
            param.grad, twin.grad = grad.clone(), grad.clone()
        clip(twins)
        plain.step()
        optimizer.step(total_norm=clip(params))
        assert_same(bits(optimizer, params), bits(plain, twins))
    assert skips(optimizer) == 2


@every_backend
def test_clipped_values_are_stepped(backend: str) -> None:
    """`clip_grad_value_` makes infinities finite, so that there is nothing to skip."""
    params = parameters((6, 5))
    optimizer, expected = SONew(params, lr=0.1, eps=1e-2, backend=backend, skip_nonfinite=True), Expected(params, Hyper(lr=0.1, eps=1e-2))
    for row in gradients(params, band=1)[:3]:
        params[0].grad = poisoned(row, 0, 2, -INF)[0]
        utils.clip_grad_value_(params, 0.25)
        expected.step([params[0].grad.clone()])
        optimizer.step()
    expected.check(optimizer, params)
    assert skips(optimizer) == 0


@every_backend
def test_no_value_reaches_the_host(backend: str) -> None:
    """Not for the guard, the norm or the counters; all signals at once are one skip."""
    params = model()
    optimizer: Any = optimizer_of(params, backend, skip_nonfinite=True, counters=True)
    rows = gradients(params, band=1)
    take_step(optimizer, params, rows[0])
    for row in (rows[1], poisoned(rows[1], 4, 0, INF), rows[2]):
        for param, grad in zip(params, row, strict=True):
            param.grad = grad
        norm = utils.clip_grad_norm_([params[0]], 1e9)
        with unread():
            optimizer.step(total_norm=norm)
    before = bits(optimizer, params)
    assert (optimizer.state[params[0]]["count"].item(), skips(optimizer)) == (3, 1)
    optimizer.found_inf = torch.tensor(1.0)
    for param, grad in zip(params, poisoned(rows[3], 0, 0, NAN), strict=True):
        param.grad = grad
    optimizer.step(total_norm=torch.tensor(NAN))
    assert_same(bits(optimizer, params), before)
    assert skips(optimizer) == 2


@every_backend
def test_a_closure_may_bring_the_poison(backend: str) -> None:
    params = parameters((6, 5))
    optimizer = SONew(params, backend=backend, skip_nonfinite=True)
    before = bits(optimizer, params)

    def closure() -> float:
        params[0].grad = torch.full((6, 5), NAN)
        return 1.5

    assert optimizer.step(closure) == 1.5
    assert_same(bits(optimizer, params), before)
    assert skips(optimizer) == 1
