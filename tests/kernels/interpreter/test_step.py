"""Whole steps of groups through the torch backend, against the reference in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sonew import reference
from sonew.backends.table import Leaf
from sonew.backends.triton_torch import StepGroup
from sonew.config import Hyper, Problem
from sonew.dispatch import make_plan, step
from tests.expected import STORE_ROWS
from tests.kernels.interpreter.harness import Group
from tests.tolerances import assert_close


def reference_step(group: Group, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(param, momentum, stats) of tensor i after the coming step, in float64 from the present float32 state."""
    leaf = group.leaves[i]
    param, grad, momentum, stats = (t.double().numpy() for t in (leaf.param, group.grads[i], leaf.momentum, leaf.stats))
    return reference.step(np, param, grad, momentum, stats, np.asarray(leaf.count.item() + 1), group.hyper)


@pytest.mark.parametrize(
    ("band", "param_dtype", "grad_dtype", "graft"),
    [
        (0, torch.float32, torch.float32, "adam"),
        (1, torch.bfloat16, torch.bfloat16, "adam"),
        (2, torch.float32, torch.bfloat16, "rmsprop"),
        (4, torch.float16, torch.float16, "sgd"),
    ],
)
def test_mixed_group_steps_like_the_reference(band: int, param_dtype: torch.dtype, grad_dtype: torch.dtype, graft: str) -> None:
    """Three steps of a group whose second tensor has no gradient in the second step."""
    hyper = Hyper(band=band, lr=0.05, weight_decay=0.1, graft=graft, eps=1e-4)  # type: ignore[arg-type]
    group = Group((260, 131, 0, 7), hyper, param_dtype=param_dtype, grad_dtype=grad_dtype)
    store = STORE_ROWS.get(param_dtype, "float32")
    for turn in range(3):
        absent = {1} if turn == 1 else set()
        expected = {i: reference_step(group, i) for i in (0, 1, 3) if i not in absent}
        before = [[t.clone() for t in (leaf.param, leaf.momentum, leaf.stats, leaf.count)] for leaf in group.leaves]
        group.stepper.bind([None if i in absent else grad for i, grad in enumerate(group.grads)])
        step(group.stepper)
        for i, leaf in enumerate(group.leaves):
            after = [leaf.param, leaf.momentum, leaf.stats, leaf.count]
            if i in absent:
                assert all(torch.equal(a, b) for a, b in zip(before[i], after, strict=True))
                continue
            assert leaf.count == before[i][3] + 1
            if i in expected:
                for got, want, row in zip(after, expected[i], (store, "float32 averages", "float32 averages"), strict=False):
                    assert_close(got, want, row, context=f"turn {turn}, tensor {i}")
    assert group.intact()


def test_strided_parameters_and_gradients() -> None:
    """A transposed parameter with a strided gradient is stepped in its logical order and written back."""
    hyper = Hyper(band=1, lr=0.1, chain=5, eps=1.0)  # from zero state only damping makes the windows well-conditioned
    param = torch.randn(6, 5).t()
    grad = torch.randn(5, 12)[:, ::2]
    leaf = Leaf(param, torch.zeros(5, 6), torch.zeros(2, 5, 6), torch.zeros((), dtype=torch.int32), 5)
    assert not param.is_contiguous()
    assert not grad.is_contiguous()
    state = (leaf.momentum, leaf.stats)
    p, g, momentum, stats = (t.contiguous().double().numpy() for t in (param, grad, *state))
    want = reference.step(np, p, g, momentum, stats, np.asarray(1), hyper)

    plan = make_plan(Problem(device="cpu", band=1, chain="block", total=30, median=30), backend="triton", tuning="off")
    stepper = StepGroup([leaf], plan)
    stepper.set_hyper(hyper)
    stepper.bind([grad])
    step(stepper)
    for got, expected in zip((param, *state), want, strict=True):
        assert_close(got, expected, "float32")


def test_learning_rate_and_graft_change_between_steps() -> None:
    """New settings take effect at the next step."""
    group = Group((40,), Hyper(band=1, lr=0.1, graft="adam"))
    for hyper in (Hyper(band=1, lr=0.2, graft="adam"), Hyper(band=1, lr=0.2, graft="none", eps=1e-2), Hyper(band=1, lr=0.0)):
        group.hyper = hyper
        want = reference_step(group, 0)
        group.stepper.set_hyper(hyper)
        step(group.stepper)
        assert_close(group.leaves[0].param, want[0], "float32", context=repr(hyper))
