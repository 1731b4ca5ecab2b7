"""A group of 150 tensors of mixed sizes in four launches: every tensor steps as the reference steps it alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import pytest
import torch

from sonew import reference, rounding
from sonew.backends import triton_torch
from sonew.config import Hyper
from sonew.torch import SONew
from tests.expected import Expected, gradients, parameters, take_step
from tests.kernels.interpreter.harness import Group
from tests.kernels.interpreter.test_hazards import equal
from tests.tolerances import assert_close

ONE_OF_EACH: Final = {"prologue": 1, "direction": 1, "norms": 1, "update": 1}
SIZES: Final = (*(0, 1, 2, 3, 31, 63, 126, 127, 128, 32) * 14, *(0, 1, 5, 65, 129), *(254, 255, 511, 777, 1000))
ABSENT: Final = frozenset(range(7, 150, 13))
HYPER: Final = Hyper(band=1, lr=0.3, weight_decay=0.1, eps=1e-3)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each kernel was launched."""
    counted: Counter[str] = Counter()

    def counting(name: str, kernel: Any) -> Any:
        def at(grid: tuple[int, ...]) -> Callable[..., None]:
            def launch(*args: Any, **kwargs: Any) -> None:
                counted[name] += 1
                kernel[grid](*args, **kwargs)

            return launch

        return type("Kernel", (), {"__getitem__": lambda _self, grid: at(grid)})()

    table = SimpleNamespace(**{name: counting(name, kernel) for name, kernel in vars(triton_torch._kernels()).items()})
    monkeypatch.setattr(triton_torch, "_kernels", lambda: table)
    return counted


def make_group(**settings: Any) -> Group:
    """The tensors, of different ages, some without a gradient."""
    group = Group(SIZES, HYPER, **settings)
    for i, leaf in enumerate(group.leaves):
        leaf.count.add_(i % 5)
    group.stepper.bind([None if i in ABSENT else grad for i, grad in enumerate(group.grads)])
    return group


def copies(group: Group) -> list[tuple[torch.Tensor, ...]]:
    return [tuple(t.clone() for t in (leaf.param, leaf.momentum, leaf.stats, leaf.count)) for leaf in group.leaves]


def expected_steps(group: Group) -> dict[int, tuple[np.ndarray, ...]]:
    """(parameter, momentum, stats) after the step of every tensor that has elements and a gradient, by the float64 reference."""
    expected: dict[int, tuple[np.ndarray, ...]] = {}
    for i, leaf in enumerate(group.leaves):
        if i not in ABSENT and SIZES[i]:
            param, grad, momentum, stats = (t.double().numpy() for t in (leaf.param, group.grads[i], leaf.momentum, leaf.stats))
            expected[i] = reference.step(np, param, grad, momentum, stats, np.asarray(leaf.count.item() + 1), HYPER)
    return expected


def check_books(group: Group, before: list[tuple[torch.Tensor, ...]]) -> None:
    """Counts advance where there is a gradient, also of empty tensors; the others are left alone, and nothing beside any tensor changed."""
    for i, (leaf, old) in enumerate(zip(group.leaves, before, strict=True)):
        assert leaf.count == old[3] + (i not in ABSENT), i
        if i in ABSENT:
            assert all(torch.equal(a, b) for a, b in zip((leaf.param, leaf.momentum, leaf.stats), old, strict=False)), i
    assert group.intact()


def test_every_tensor_steps_like_the_reference_and_twice_alike(launches: Counter[str]) -> None:
    """One step in four launches; the same step of another group, elsewhere in memory, has the same bits."""
    assert len(SIZES) == 150
    group, twin = make_group(), make_group()
    before, expected = copies(group), expected_steps(group)
    group.run()
    assert launches == ONE_OF_EACH
    check_books(group, before)
    for i, want in expected.items():
        leaf = group.leaves[i]
        for got, value, row in zip((leaf.param, leaf.momentum, leaf.stats), want, ("float32", *["float32 averages"] * 2), strict=True):
            assert_close(got, value, row, context=f"tensor {i} of size {SIZES[i]}")
    twin.run()
    for ours, others in zip(copies(group), copies(twin), strict=True):
        assert equal(*(tuple(t.contiguous().view(torch.int32) for t in tensors) for tensors in (ours, others)))


@pytest.mark.full
def test_bfloat16_state_of_every_tensor(launches: Counter[str]) -> None:
    """Parameters step from the unrounded state; what is stored is rounded with each tensor's own noise."""
    group = make_group(state_dtype=torch.bfloat16)
    before, expected = copies(group), expected_steps(group)
    group.run()
    assert launches == ONE_OF_EACH
    check_books(group, before)
    stored, wanted = [], []
    for i, (param, momentum, stats) in expected.items():
        leaf = group.leaves[i]
        assert_close(leaf.param, param, "float32", context=f"tensor {i} of size {SIZES[i]}")
        key = [np.array([number], dtype=np.int32) for number in (leaf.seed, int(leaf.count))]
        for row, (got, value) in enumerate(zip((leaf.momentum, *leaf.stats), (momentum, *stats), strict=True)):
            bits = rounding.noise(key[0], key[1], row, np.arange(SIZES[i], dtype=np.int32))
            stored.append(got)
            wanted.append(rounding.round_to_bfloat16(np, value.astype(np.float32), bits))
    assert_close(torch.cat(stored), np.concatenate(wanted), "bfloat16 stochastic")


def test_optimizer_with_gradients_elsewhere_in_every_step(launches: Counter[str]) -> None:
    """150 parameters of every shape through the torch surface, others without a gradient in each step."""
    shapes = [((), (0, 3), (5,), (1, 1), (7, 9), (33, 2), (2, 3, 4), (127,), (64, 2), (1,))[i % 10] for i in range(149)]
    params = parameters(*shapes, (40, 55))
    hyper = Hyper(band=1, lr=0.1, weight_decay=0.1, eps=1.0)  # from zero state only damping makes the windows well-conditioned
    settings = {"lr": hyper.lr, "weight_decay": hyper.weight_decay, "eps": hyper.eps, "band": hyper.band}
    optimizer = SONew(params, backend="triton", tuning="off", **settings)  # type: ignore[arg-type]
    expected, rows = Expected(params, hyper), gradients(params, band=1)
    kept = []  # no gradient's memory is used again
    for turn in range(2):
        grads = [None if (i + turn) % 11 == 0 else grad.clone() for i, grad in enumerate(rows[turn])]
        kept.append(grads)
        launches.clear()
        take_step(optimizer, params, grads)
        assert launches == ONE_OF_EACH
        expected.step(grads)
    expected.check(optimizer, params)
    assert len({grad.data_ptr() for grads in kept for grad in grads if grad is not None and grad.numel()}) > 200
