"""Tensors that stay the same objects while their storage moves, and what a checkpoint does not decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

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
