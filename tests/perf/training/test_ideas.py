from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sonew.errors import InvalidConfigError
from sonew.torch import SONew
from sonew_perf.training import ideas
from sonew_perf.training.settings import IDEAS, Settings

SETTINGS: dict[str, Any] = {"lr": 3e-2, "beta1": 0.8, "beta2": 0.9, "eps": 1e-3, "band": 2}


@pytest.fixture(autouse=True)
def _uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ideas, "_compiled", lambda: ideas._direction)


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1))


def _steps(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 4) -> list[torch.Tensor]:
    """Parameters after some steps on fixed gradients, which decay so that the statistics' rows differ in age."""
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        for param in model.parameters():
            param.grad = torch.randn(param.shape, generator=generator) / (step + 1)
        optimizer.step()
    return [param.detach().clone() for param in model.parameters()]


def _changed(**settings: Any) -> list[torch.Tensor]:
    model = _model()
    return _steps(model, ideas.build(model, Settings(**(SETTINGS | settings))))


def _sonew(**settings: Any) -> list[torch.Tensor]:
    model, chosen = _model(), SETTINGS | settings
    betas = chosen.pop("beta1"), chosen.pop("beta2")
    return _steps(model, SONew(model.parameters(), betas=betas, backend="reference", **chosen))


def _apart(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("chain", ["tensor", "row"])
def test_without_a_change_the_steps_are_sonews(chain: str) -> None:
    assert _apart(_changed(idea="slow-couplings", band=0, chain=chain), _sonew(band=0, chain=chain)) < 1e-6
    assert _apart(_changed(idea="pivot-floor", chain=chain), _sonew(chain=chain)) < 1e-6  # no pivot is below this eps


@pytest.mark.parametrize("idea", [idea for idea in IDEAS if idea != "none"])
def test_each_idea_changes_the_steps(idea: str) -> None:
    settings: dict[str, Any] = {"eps": 1e-7} if idea == "pivot-floor" else {}
    assert _apart(_changed(idea=idea, **settings), _sonew(**settings)) > 1e-4


def test_a_floor_above_every_pivot_leaves_the_diagonal_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ideas._Floor, "__mul__", lambda _self, _diagonal: 1e9)
    assert _apart(_changed(idea="pivot-floor"), _sonew(band=0)) < 1e-6


def test_slow_couplings_forget_as_slowly_as_said() -> None:
    """One gradient, then zeros: the diagonal's mean fades with beta2, the off-diagonals' with the slower decay."""
    model = nn.Linear(3, 1, bias=False)
    optimizer = ideas.build(model, Settings(**(SETTINGS | {"idea": "slow-couplings", "band": 1})))
    for gradient in (torch.ones(1, 3), torch.zeros(1, 3)):
        model.weight.grad = gradient
        optimizer.step()
    rows = optimizer.state[model.weight]["stats"]
    assert rows[0].tolist() == pytest.approx([0.1 * 0.9] * 3)
    assert rows[1].tolist() == pytest.approx([0.025 * 0.975] * 2 + [0.0])


def test_averaged_after_averages_the_directions_of_single_gradients() -> None:
    model, bare = _model(), _model()
    got = _steps(model, ideas.build(model, Settings(**(SETTINGS | {"idea": "averaged-after"}))))
    directions: list[list[torch.Tensor]] = []
    before = [param.detach().clone() for param in bare.parameters()]
    optimizer = SONew(bare.parameters(), lr=1.0, betas=(0.0, 0.9), eps=1e-3, band=2, backend="reference")
    generator = torch.Generator().manual_seed(1)
    for step in range(4):
        for param in bare.parameters():
            param.grad = torch.randn(param.shape, generator=generator) / (step + 1)
        kept = [param.detach().clone() for param in bare.parameters()]
        optimizer.step()
        directions.append([a - param.detach() for a, param in zip(kept, bare.parameters(), strict=True)])
    for at, expected in enumerate(before):
        mean = torch.zeros_like(expected)
        for count, direction in enumerate(directions, start=1):
            mean = 0.8 * mean + 0.2 * direction[at]
            expected.sub_(3e-2 * mean / (1 - 0.8**count))
    assert _apart(got, before) < 1e-4  # directions are read as differences of parameters, in float32


def test_what_no_idea_takes_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match=r"graft='none' is not allowed beside idea='pivot-floor': it must be 'adam'"):
        ideas.build(_model(), Settings(idea="pivot-floor", graft="none"))
