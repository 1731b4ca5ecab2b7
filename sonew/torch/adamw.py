"""From AdamW to SONew and back in mid-run. Both average the gradient and its square by the same formulas, so the averages go on.

What Adam does not have is the products of neighbours: their averages start at zero and grow in. Meanwhile every window is a mixture of
the full one with its diagonal, so it stays positive wherever the full one is.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any, Final

import torch

from sonew.errors import InvalidConfigError
from sonew.layout import COUNT, MOMENTUM, STATS
from sonew.torch.shards import local_of
from sonew.torch.state import fresh_state

SHARED: Final = ("lr", "weight_decay", "maximize", "capturable", "decoupled_weight_decay")
ADAM_ONLY: Final = {"amsgrad", "foreach", "fused", "differentiable", "eps", "betas"}


def _carried(group: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """What users and schedulers keep in a group."""
    return {name: value for name, value in group.items() if name not in known and name not in ("params", "param_names")}


def _params(group: Mapping[str, Any]) -> list[Any]:
    """The parameters, with their names where the group knows them."""
    names = group.get("param_names")
    return list(group["params"]) if names is None else list(zip(names, group["params"], strict=True))


def groups_from_adamw(optimizer: torch.optim.Optimizer, settings: Mapping[str, Any], kind: type) -> list[dict[str, Any]]:
    """Parameter groups for SONew: lr, betas, weight decay, maximize and capturable as they are; `eps` is not taken over.

    Adam's eps damps a root, SONew's the statistics themselves.

    Args:
        optimizer: a `torch.optim.Adam` or `AdamW`.
        settings: SONew's arguments by name; they win in every group.
        kind: the class whose arguments they are.

    Raises:
        InvalidConfigError: another optimizer, or an unknown setting.
    """
    if not isinstance(optimizer, torch.optim.Adam):
        msg = f"{type(optimizer).__name__} is not allowed: it must be a torch.optim.AdamW or torch.optim.Adam. Start SONew afresh."
        raise InvalidConfigError(msg)
    allowed = set(signature(kind).parameters) - {"params"}
    if unknown := sorted(set(settings) - allowed):
        msg = f"settings {unknown} are not allowed: they must be among {sorted(allowed)}. Correct the names."
        raise InvalidConfigError(msg)
    return [
        {
            "params": _params(group),
            **_carried(group, {*SHARED, *ADAM_ONLY}),
            **{name: group[name] for name in SHARED},
            "betas": tuple(float(beta) for beta in group["betas"]),
            **settings,
        }
        for group in optimizer.param_groups
    ]


@torch.no_grad()
def import_state(optimizer: torch.optim.Optimizer, adamw: torch.optim.Optimizer) -> None:
    """Take Adam's averages and counts over into a SONew over the same parameters; amsgrad's maxima are dropped."""
    for group in optimizer.param_groups:
        for param in group["params"]:
            held = adamw.state.get(param)
            if not held:
                continue
            state = fresh_state(param, group["band"], group["state_dtype"])
            local_of(state[MOMENTUM]).copy_(local_of(held["exp_avg"]))
            local_of(state[STATS])[0].copy_(local_of(held["exp_avg_sq"]))
            state[COUNT].fill_(int(held["step"]))
            optimizer.state[param] = state


@torch.no_grad()
def to_adamw(optimizer: torch.optim.Optimizer, *, eps: float) -> torch.optim.Adam:
    """AdamW over a SONew's parameters, with its averages and counts; Adam where a group's decay is coupled.

    State is kept as torch keeps it: averages in the parameter's type, the step as a float32 scalar, on the host unless capturable.

    Args:
        optimizer: a `sonew.torch.SONew`.
        eps: Adam's own damping.
    """
    groups = [
        {
            "params": _params(group),
            **_carried(group, {*SHARED, *optimizer.defaults}),
            **{name: group[name] for name in SHARED},
            "betas": group["betas"],
            "eps": eps,
        }
        for group in optimizer.param_groups
    ]
    decoupled = all(group["decoupled_weight_decay"] for group in groups)
    made: torch.optim.Adam = (torch.optim.AdamW if decoupled else torch.optim.Adam)(groups)
    for group in made.param_groups:
        for param in group["params"]:
            held = optimizer.state.get(param)
            if not held:
                continue
            averages = {name: torch.zeros_like(param, memory_format=torch.preserve_format) for name in ("exp_avg", "exp_avg_sq")}
            local_of(averages["exp_avg"]).copy_(local_of(held[MOMENTUM]))
            local_of(averages["exp_avg_sq"]).copy_(local_of(held[STATS])[0])
            step = held[COUNT].to(torch.float32)
            made.state[param] = {"step": step if group["capturable"] else step.cpu(), **averages}
    return made
