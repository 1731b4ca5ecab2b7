"""Changes of the method that might lower its loss at O(n) cost, as optimizers to train with: written for the question, not for speed.

`sonew-perf train --set idea=NAME` takes one of `settings.IDEAS`; the README beside this file says what came out. The kernels know none of
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any, Final

import torch
from torch import nn

from sonew import reference
from sonew.config import Hyper, chain_length
from sonew.errors import InvalidConfigError
from sonew.torch import SONew
from sonew_perf.training.settings import Settings

Array = torch.Tensor
Links = tuple[torch.Tensor, ...]
SLOWER: Final = 4  # off-diagonals: 1 - beta2 is divided by this


class _Floor:
    """A threshold for pivots that is the same for every column, where `sonew.reference` expects a factor of their diagonal entries."""

    def __init__(self, floor: float) -> None:
        self.floor = floor

    def __mul__(self, _diagonal: torch.Tensor) -> float:
        return self.floor


def slow_beta2(beta2: float) -> float:
    """The decay of the off-diagonals."""
    return 1 - (1 - beta2) / SLOWER


def _accumulate(momentum: Array, stats: Array, grad: Array, links: Links, hyper: Hyper, idea: str) -> tuple[Array, Array]:
    """As `reference.accumulate`; off-diagonals forget more slowly where that is the idea."""
    fresh, rows = reference.accumulate(torch, momentum, stats, grad, links, hyper)
    if idea != "slow-couplings":
        return fresh, rows
    slower = replace(hyper, beta2=slow_beta2(hyper.beta2))
    return fresh, torch.cat((rows[:1], reference.accumulate(torch, momentum, stats, grad, links, slower)[1][1:]))


def _direction(momentum: Array, stats: Array, grad: Array, corrections: Array, links: Links, hyper: Hyper, idea: str) -> tuple[Array, ...]:
    """New momentum (n,) and statistics (band + 1, n), the direction (n,) and the one whose norms it takes (n,).

    Args:
        corrections: of momentum, diagonal and off-diagonals (3,).
    """
    momentum, stats = _accumulate(momentum, stats, grad, links, hyper, idea)
    corrected = momentum / corrections[0]
    ready = torch.cat((stats[:1] / corrections[1], stats[1:] / corrections[2]))
    rule: Any = SimpleNamespace(eps=hyper.eps, eps_rel=hyper.eps_rel, gamma=_Floor(hyper.eps) if idea == "pivot-floor" else hyper.gamma)
    lower, diagonal = reference.factor(torch, ready, links, rule)
    direction = reference.apply(torch, lower, diagonal, corrected, links)
    return momentum, stats, direction, reference.graft_target(torch, grad, corrected, ready[0], stats[0], hyper)


@cache
def _compiled() -> Callable[..., tuple[Array, ...]]:
    return torch.compile(_direction, dynamic=False)


class Changed(torch.optim.Optimizer):
    """SONew by the reference, with one rule changed; all tensors in one array, so that one program is compiled.

    Args:
        params: of one group. hyper: lr is read from the group.
        idea: "slow-couplings" (off-diagonals forget `SLOWER` times more slowly) or "pivot-floor" (a pivot below eps, which exact
            arithmetic cannot give, makes its column fall back).
    """

    def __init__(self, params: Iterable[torch.Tensor], idea: str, hyper: Hyper) -> None:
        super().__init__(params, {"lr": hyper.lr})
        self._idea, self._hyper, self._count = idea, hyper, 0
        self._params: list[torch.Tensor] = self.param_groups[0]["params"]
        self._sizes = [param.numel() for param in self._params]
        lengths = [chain_length(hyper.chain, tuple(param.shape)) for param in self._params]
        masks = [reference.chain_links(torch, p.detach().reshape(-1), hyper.band, n) for p, n in zip(self._params, lengths, strict=True)]
        self._links = tuple(torch.cat(rows) for rows in zip(*masks, strict=True))
        total, device = sum(self._sizes), self._params[0].device
        self.state[self._params[0]] = {
            "momentum": torch.zeros(total, device=device),
            "stats": torch.zeros(hyper.band + 1, total, device=device),
        }

    def _corrections(self) -> torch.Tensor:
        betas = (
            self._hyper.beta1,
            self._hyper.beta2,
            slow_beta2(self._hyper.beta2) if self._idea == "slow-couplings" else self._hyper.beta2,
        )
        return torch.tensor([1 - beta**self._count for beta in betas], device=self._params[0].device)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # torch types it by overloads
        """Step every parameter; each has a gradient."""
        del closure
        self._count += 1
        state = self.state[self._params[0]]
        grad = torch.cat([param.grad.reshape(-1) for param in self._params if param.grad is not None])
        arrays = (state["momentum"], state["stats"], grad, self._corrections(), self._links)
        state["momentum"], state["stats"], direction, wanted = _compiled()(*arrays, self._hyper, self._idea)
        for param, own, taken in zip(self._params, direction.split(self._sizes), wanted.split(self._sizes), strict=True):
            length = own.norm()
            scale = torch.where(length > 0, taken.norm() / length, 0.0)
            param.sub_((own * scale).view_as(param), alpha=self.param_groups[0]["lr"])


class AveragedAfter(torch.optim.Optimizer):
    """Preconditions the gradient and averages the grafted directions, where SONew preconditions the averaged gradient.

    Args:
        inner: forms the directions of single gradients: its own momentum is off. lr, beta1: of the average.
    """

    def __init__(self, inner: SONew, lr: float, beta1: float) -> None:
        super().__init__(inner.param_groups[0]["params"], {"lr": lr})
        self._inner, self._beta1, self._count = inner, beta1, 0
        self._inner.param_groups[0]["lr"] = 1.0

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # torch types it by overloads
        """Step every parameter of the one group."""
        del closure
        group, self._count = self.param_groups[0], self._count + 1
        before = [param.clone() for param in group["params"]]
        self._inner.step()
        rate = group["lr"] / (1 - self._beta1**self._count)
        for param, kept in zip(group["params"], before, strict=True):
            state = self.state[param]
            if not state:
                state |= {"mean": torch.zeros_like(param), "sonew": self._inner.state[param]}
            state["mean"].lerp_(kept - param, 1 - self._beta1)
            param.copy_(kept).sub_(state["mean"], alpha=rate)


def build(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """The optimizer of `settings.idea`, in float32 over all parameters.

    Raises:
        InvalidConfigError: a setting beside it that the ideas do not take.
    """
    plain = Settings()
    for name in ("weight_decay", "eps_rel", "gamma", "graft", "layers"):
        if (value := getattr(settings, name)) != getattr(plain, name):
            msg = f"{name}={value!r} is not allowed beside idea={settings.idea!r}: it must be {getattr(plain, name)!r}. Leave it out."
            raise InvalidConfigError(msg)
    rates: dict[str, Any] = {"eps": settings.eps, "band": settings.band, "chain": settings.chain}
    if settings.idea == "averaged-after":
        inner = SONew(model.parameters(), betas=(0.0, settings.beta2), **rates)
        return AveragedAfter(inner, settings.lr, settings.beta1)
    hyper = Hyper(lr=settings.lr, beta1=settings.beta1, beta2=settings.beta2, **rates)
    return Changed(model.parameters(), settings.idea, hyper)
