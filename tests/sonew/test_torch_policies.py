"""Groups by policy: every trainable parameter in exactly one, with what holds for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sonew import InvalidConfigError
from sonew.torch import SONew, param_groups


class Model(nn.Module):
    """Embedding, tied head, norms of several kinds, a frozen layer, a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(11, 4)
        self.position = nn.Embedding(7, 4)
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.LayerNorm(4), nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.RMSNorm((2, 4))])
        self.frozen = nn.Linear(3, 3).requires_grad_(requires_grad=False)
        self.scale = nn.Parameter(torch.ones(()))
        self.head = nn.Linear(4, 11)
        self.head.weight = self.token.weight


def named(model: nn.Module, groups: list[dict[str, Any]]) -> dict[str, tuple[float, int | None]]:
    """Name of each parameter to (weight decay, band if chosen)."""
    held = {param: (group["weight_decay"], group.get("band")) for group in groups for param in group["params"]}
    return {name: held[param] for name, param in model.named_parameters() if param in held}


def test_the_default_policy() -> None:
    model = Model()
    groups = param_groups(model, 0.1)
    assert named(model, groups) == {
        "token.weight": (0.1, 0),
        "position.weight": (0.1, 0),
        "layers.0.weight": (0.1, None),
        "layers.0.bias": (0.0, None),
        "layers.1.weight": (0.0, None),
        "layers.1.bias": (0.0, None),
        "layers.2.weight": (0.1, None),
        "layers.2.bias": (0.0, None),
        "layers.3.weight": (0.0, None),
        "layers.3.bias": (0.0, None),
        "layers.4.weight": (0.0, None),
        "scale": (0.0, None),
        "head.bias": (0.0, None),
    }
    assert [group["name"] for group in groups] == ["no decay", "decay, diagonal", "decay"]
    params = [param for group in groups for param in group["params"]]
    assert len(set(params)) == len(params) == 13
    optimizer = SONew(groups, lr=1e-3, band=2)
    assert {group["name"]: group["band"] for group in optimizer.param_groups} == {"no decay": 2, "decay, diagonal": 0, "decay": 2}


def test_choices_by_pattern_and_by_type() -> None:
    model = Model()
    found = named(model, param_groups(model, 0.1, no_decay=("token.*", nn.Conv2d), diagonal=("layers.0.*",), decay_vectors=True))
    assert found["token.weight"] == (0.0, None)
    assert (found["layers.2.weight"], found["layers.2.bias"]) == ((0.0, None), (0.0, None))
    assert (found["layers.0.weight"], found["layers.0.bias"]) == ((0.1, 0), (0.1, 0))
    assert found["position.weight"] == found["head.bias"] == found["scale"] == (0.1, None)


def test_a_tied_parameter_is_held_by_each_of_its_modules() -> None:
    model = Model()
    assert named(model, param_groups(model, 0.1, diagonal=("head.weight",)))["token.weight"] == (0.1, 0)
    assert named(model, param_groups(model, 0.1, no_decay=("head.*",)))["token.weight"] == (0.0, 0)


def test_a_choice_that_means_nothing_is_an_error() -> None:
    with pytest.raises(InvalidConfigError, match=r"the pattern 'haed\.\*' matches no parameter.*scale.*Correct it"):
        param_groups(Model(), diagonal=("haed.*",))
    wrong: Any = (3,)
    with pytest.raises(InvalidConfigError, match="3 is not allowed: it must be a module type or a pattern"):
        param_groups(Model(), no_decay=wrong)
    assert param_groups(nn.Linear(2, 2, bias=False))[0]["name"] == "decay"
