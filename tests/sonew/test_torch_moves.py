"""Tensors that stay the same objects while their storage moves, and what a checkpoint does not decide."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from sonew import InvalidConfigError, UnsupportedProblemError
from sonew.torch import SONew
from tests.expected import gradients, parameters, take_step

every_backend = pytest.mark.parametrize("backend", ["reference", "cpu"])


def moves() -> dict[str, Callable[[SONew, torch.Tensor], None]]:
    """Ways in which storage moves under a tensor."""

    def become_contiguous(_: SONew, param: torch.Tensor) -> None:
        param.data = param.data.contiguous()

    def become_strided(_: SONew, param: torch.Tensor) -> None:
        param.data = param.data.t().contiguous().t()

    def state_moves(optimizer: SONew, param: torch.Tensor) -> None:
        for value in optimizer.state[param].values():
            value.data = value.data.clone()

    return {"contiguous": become_contiguous, "strided": become_strided, "state": state_moves}


@every_backend
@pytest.mark.parametrize("move", moves().values(), ids=moves())
@pytest.mark.parametrize("strided", [False, True])
def test_storage_may_move_between_steps(backend: str, move: Callable[[SONew, torch.Tensor], None], strided: bool) -> None:
    """The same steps with and without moves, from a contiguous and from a strided start: the same bits."""
    params = [parameters((6, 5))[0] for _ in range(2)]
    if strided:
        params[0].data = params[0].data.t().contiguous().t()
    optimizers = [SONew([param], lr=0.1, backend=backend) for param in params]
    for count, row in enumerate(gradients(params[:1], band=1)[:6]):
        if count in (2, 4):
            move(optimizers[0], params[0])
        for optimizer, param in zip(optimizers, params, strict=True):
            take_step(optimizer, [param], row)
    assert torch.equal(params[0], params[1])
    for name, value in optimizers[1].state[params[1]].items():
        assert torch.equal(optimizers[0].state[params[0]][name], value)


@every_backend
def test_gradients_may_lie_elsewhere_in_every_step(backend: str) -> None:
    """Taken anew every step, as after `zero_grad`, or refilled in place: the same bits. One sits out a step."""
    moved, stayed = parameters((6, 5), (7,)), parameters((6, 5), (7,))
    one, other = SONew(moved, lr=0.1, backend=backend), SONew(stayed, lr=0.1, backend=backend)
    homes = [torch.empty_like(param) for param in stayed]
    kept: list[torch.Tensor] = []  # alive, so that no address comes back
    for count, row in enumerate(gradients(moved, band=1)[:6]):
        fresh = [grad.clone() for grad in row]
        kept += fresh
        for home, grad in zip(homes, row, strict=True):
            home.copy_(grad)
        take_step(one, moved, [fresh[0], None if count == 3 else fresh[1]])
        take_step(other, stayed, [homes[0], None if count == 3 else homes[1]])
    assert len({grad.data_ptr() for grad in kept}) == len(kept)
    for param, twin in zip(moved, stayed, strict=True):
        assert torch.equal(param, twin)
        for name, value in other.state[twin].items():
            assert torch.equal(one.state[param][name], value), name


def test_a_checkpoint_does_not_choose_the_backend() -> None:
    """Saved where it was stepped by one backend, loaded where it shall be stepped by another."""
    (param,) = parameters((7,))
    saved: Any = SONew([param], backend="reference", tuning="off", lr=0.5)
    take_step(saved, [param], [torch.ones(7)])
    loaded = SONew([param], backend="cpu", lr=0.1)
    loaded.load_state_dict(saved.state_dict())
    take_step(loaded, [param], [torch.ones(7)])
    assert [plan.backend for plan in loaded.plans()] == ["cpu"]
    assert (loaded.param_groups[0]["tuning"], loaded.param_groups[0]["lr"]) == ("on", 0.5)
    assert loaded.state[param]["count"].item() == 2


def test_another_number_of_threads_is_another_plan() -> None:
    """Tuned entries hold for a number of threads; a training that changes it must not keep one for another."""
    (param,) = parameters((7,))
    optimizer = SONew([param], backend="cpu")
    take_step(optimizer, [param], [torch.ones(7)])
    before = optimizer.plans()[0]
    take_step(optimizer, [param], [torch.ones(7)])
    assert optimizer.plans()[0] is before
    torch.set_num_threads(torch.get_num_threads() + 1)
    take_step(optimizer, [param], [torch.ones(7)])
    assert optimizer.plans()[0] is not before


@every_backend
@pytest.mark.parametrize("change", [lambda x: x.to(torch.bfloat16), lambda x: torch.stack([x, x], -1)[..., 0]], ids=["type", "strides"])
def test_state_that_became_another_kind_under_the_same_tensor_is_refused(
    backend: str, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Kernels trust its type and strides: a plan made for the old ones must not be used."""
    (param,) = parameters((6,))
    optimizer = SONew([param], backend=backend)
    take_step(optimizer, [param], [torch.ones(6)])
    held = optimizer.state[param]["momentum"]
    held.data = change(held.data)
    with pytest.raises(InvalidConfigError, match="momentum"):
        optimizer.step()


@every_backend
def test_a_default_device_is_none_of_its_business(backend: str) -> None:
    (param,) = parameters((6,))
    optimizer = SONew([param], backend=backend, counters=True, skip_nonfinite=True)
    grads = [torch.ones(6) for _ in range(2)]
    torch.set_default_device("meta")
    try:
        for grad in grads:
            take_step(optimizer, [param], [grad])
        assert optimizer.read_counters().tensors[0].counted == 2
    finally:
        torch.set_default_device(None)


@every_backend
def test_removed_groups_are_let_go(backend: str) -> None:
    kept, removed = parameters((6,), (50,))
    optimizer = SONew([{"params": [kept]}, {"params": [removed]}], backend=backend, counters=True)
    take_step(optimizer, [kept, removed], [torch.ones(6), torch.ones(50)])
    del optimizer.param_groups[1], optimizer.state[removed]
    watched = weakref.ref(removed)
    del removed
    take_step(optimizer, [kept], [torch.ones(6)])
    gc.collect()
    assert watched() is None
    assert len(optimizer.plans()) == 1


def test_a_step_that_is_refused_counts_nothing() -> None:
    """Columns are counted once, also where a plan could not be made in between."""
    params = parameters((40,))
    optimizer = SONew(params, gamma=0.9, counters=True)
    rows = gradients(params, band=1)
    for row in rows[:3]:
        take_step(optimizer, params, row)
    before = optimizer.read_counters().tensors[0]
    assert before.fallen > 0
    for _ in range(2):
        params[0].grad = torch.ones(40).to_sparse()
        with pytest.raises(UnsupportedProblemError, match="sparse"):
            optimizer.step()
    assert optimizer.read_counters().tensors[0] == before
    torch.set_num_threads(torch.get_num_threads() + 1)  # another plan
    take_step(optimizer, params, rows[3])
    after = optimizer.read_counters().tensors[0]
    assert (after.steps, after.counted) == (4, 4)
    assert before.fallen < after.fallen <= before.fallen + 40
