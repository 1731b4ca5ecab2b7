"""Switching between AdamW and SONew in mid-run: the averages and counts go on, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sonew import InvalidConfigError, reference
from sonew.config import Hyper
from sonew.torch import SONew
from tests.expected import gradients, parameters, take_step
from tests.tolerances import assert_close

SHAPES = ((6, 5), (7,), (), (0,))
every_backend = pytest.mark.parametrize("backend", ["reference", "cpu"])


def trained(
    kind: type[torch.optim.Adam] = torch.optim.AdamW, *, dtype: torch.dtype = torch.float32, **settings: Any
) -> tuple[Any, Any, Any]:
    """(optimizer after five steps, its parameters, the coming gradients)."""
    params = parameters(*SHAPES, dtype=dtype)
    chosen: dict[str, Any] = {"lr": 0.1, "betas": (0.8, 0.95), "weight_decay": 0.2} | settings
    optimizer = kind(params, **chosen)
    rows = gradients(params, band=1)
    for row in rows[:5]:
        take_step(optimizer, params, [grad.to(dtype) for grad in row])
    return optimizer, params, rows[5:]


@every_backend
@pytest.mark.parametrize("band", [0, 2])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam])
def test_the_next_step_starts_from_adams_averages(backend: str, band: int, kind: type[torch.optim.Adam]) -> None:
    """As the reference steps from momentum exp_avg and stats (exp_avg_sq, 0, ...)."""
    adam, params, rows = trained(kind)
    before = [param.detach().numpy().copy() for param in params]
    held = [{name: value.numpy().copy() for name, value in adam.state[param].items()} for param in params]
    optimizer = SONew.from_adamw(adam, {"band": band, "backend": backend, "eps": 1e-2})
    decoupled = kind is torch.optim.AdamW
    hyper = Hyper(lr=0.1, beta1=0.8, beta2=0.95, eps=1e-2, weight_decay=0.2, band=band, decoupled_weight_decay=decoupled)
    take_step(optimizer, params, rows[0])
    for i, param in enumerate(params):
        stats = np.zeros((band + 1, *before[i].shape), np.float32)
        stats[0] = held[i]["exp_avg_sq"]
        want, momentum, stats = reference.step(
            np, before[i], rows[0][i].numpy(), held[i]["exp_avg"], stats, np.asarray(held[i]["step"] + 1), hyper
        )
        assert_close(param, want, "float32", context=f"parameter {i}")
        assert_close(optimizer.state[param]["momentum"], momentum, "float32 averages")
        assert_close(optimizer.state[param]["stats"], stats, "float32 averages")
        assert optimizer.state[param]["count"].item() == 6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam])
@pytest.mark.parametrize("maximize", [False, True])
def test_there_and_back_changes_no_bit(dtype: torch.dtype, kind: type[torch.optim.Adam], maximize: bool) -> None:
    """The same optimizer as before: its next steps are the ones it would have taken."""
    adam, params, rows = trained(kind, dtype=dtype, maximize=maximize, eps=1e-5)
    straight, twins, _ = trained(kind, dtype=dtype, maximize=maximize, eps=1e-5)
    back = SONew.from_adamw(adam, {"band": 3}).to_adamw(eps=1e-5)
    assert type(back) is kind
    for param, twin in zip(params, twins, strict=True):
        for name, value in straight.state[twin].items():
            assert back.state[param][name].dtype == value.dtype, name
            assert torch.equal(back.state[param][name], value), name
    for row in rows[:3]:
        take_step(back, params, [grad.to(dtype) for grad in row])
        take_step(straight, twins, [grad.to(dtype) for grad in row])
    assert all(torch.equal(param, twin) for param, twin in zip(params, twins, strict=True))


def test_averages_of_a_run_with_sonew_go_to_adam() -> None:
    params = parameters(*SHAPES)
    optimizer = SONew(params, lr=0.1, band=2)
    for row in gradients(params, band=2)[:4]:
        take_step(optimizer, params, row)
    adam = optimizer.to_adamw()
    for param in params:
        assert torch.equal(adam.state[param]["exp_avg"], optimizer.state[param]["momentum"])
        assert torch.equal(adam.state[param]["exp_avg_sq"], optimizer.state[param]["stats"][0])
        assert adam.state[param]["step"].item() == 4.0
    assert adam.param_groups[0]["betas"] == (0.9, 0.99)


def test_groups_keep_their_settings_names_and_extras() -> None:
    first, second = parameters((4, 3), (5,))
    lr = torch.tensor(0.25)
    adam = torch.optim.AdamW(
        [{"params": [("a", first)], "lr": lr, "role": "weights"}, {"params": [("b", second)], "weight_decay": 0.0}], lr=0.5
    )
    torch.optim.lr_scheduler.StepLR(adam, 5)
    optimizer = SONew.from_adamw(adam, {"band": 4, "seed": 3})
    groups = optimizer.param_groups
    assert groups[0]["lr"] is lr
    assert [(group["weight_decay"], group["band"], group["seed"], group["param_names"]) for group in groups] == [
        (0.01, 4, 3, ["a"]),
        (0.0, 4, 3, ["b"]),
    ]
    assert groups[0]["role"] == "weights"
    assert groups[1]["initial_lr"] == 0.5
    assert [group["eps"] for group in groups] == [1e-8, 1e-8]
    back = optimizer.to_adamw()
    assert back.param_groups[0]["role"] == "weights"
    assert "band" not in back.param_groups[0]


def test_switching_goes_on_learning() -> None:
    """There and back in the middle of a regression: the loss falls on, in every stretch."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    inputs = torch.randn(256, 8)

    def learn(optimizer: torch.optim.Optimizer) -> float:
        for _ in range(30):
            optimizer.zero_grad()
            loss = (model(inputs) - inputs[:, :1].sin()).square().mean()
            loss.backward()
            optimizer.step()
        return float(loss.item())

    adam = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = learn(adam)
    optimizer = SONew.from_adamw(adam, {"band": 1})
    second = learn(optimizer)
    third = learn(optimizer.to_adamw())
    assert third < 0.9 * second < 0.9 * 0.9 * first


def test_what_is_refused() -> None:
    params = parameters((3,))
    with pytest.raises(InvalidConfigError, match=r"SGD is not allowed: it must be a torch\.optim\.AdamW or torch\.optim\.Adam"):
        SONew.from_adamw(torch.optim.SGD(params, lr=0.1))
    with pytest.raises(InvalidConfigError, match=r"settings \['bands'\] are not allowed.*'band'"):
        SONew.from_adamw(torch.optim.AdamW(params), {"bands": 2})
