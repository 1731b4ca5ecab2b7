"""The reference as a torch backend: slow, plain, on any device and in any dtype. It keeps every other backend honest."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sonew import reference, rounding
from sonew.backends.table import Leaf
from sonew.config import COMPUTE_DTYPE, Hyper, Plan, Problem

KERNEL = ""


def rejects(problem: Problem) -> str | None:  # noqa: ARG001  # the backend protocol's signature; the reference takes every problem
    """Reason why this backend cannot take the problem, or None."""
    return None


def environment() -> dict[str, str | int]:
    """Nothing here is tuned, so nothing identifies the device."""
    return {}


def _store(target: torch.Tensor, value: torch.Tensor, leaf: Leaf, row: int, *, stochastic: bool) -> None:
    """Write float32 or float64 values of any shape home, stochastically rounded where asked and the home is bfloat16."""
    if stochastic and target.dtype is torch.bfloat16 and value.numel():
        flat = value.reshape(-1).to(torch.float32)
        index = torch.arange(flat.numel(), dtype=torch.int32, device=flat.device)
        seed = torch.tensor([leaf.seed], dtype=torch.int32, device=flat.device)
        bits = rounding.noise(seed, leaf.count.reshape(1), row, index)
        value = rounding.round_to_bfloat16(torch, flat, bits).reshape(value.shape)
    target.copy_(value)


class StepGroup:
    """Steps a group tensor by tensor with `sonew.reference`, in the phases every backend has."""

    def __init__(self, leaves: Sequence[Leaf], plan: Plan, *, direction: torch.Tensor | None = None) -> None:  # noqa: ARG002  # protocol
        self._leaves = tuple(leaves)
        self._compute = getattr(torch, COMPUTE_DTYPE[plan.problem.state_dtype])
        self._scratch = getattr(torch, plan.problem.direction_dtype)
        self._hyper = Hyper()
        self._grads: tuple[torch.Tensor | None, ...] = ()
        self._steps: list[tuple[Leaf, torch.Tensor, torch.Tensor]] = []

    def set_hyper(self, hyper: Hyper) -> None:
        """Settings for the coming steps."""
        self._hyper = hyper

    def bind(self, grads: Sequence[torch.Tensor | None]) -> None:
        """This step's gradients; None leaves the tensor alone."""
        self._grads = tuple(grads)

    def prologue(self) -> None:
        """Count the step of every tensor that has a gradient."""
        for leaf, grad in zip(self._leaves, self._grads, strict=True):
            if grad is not None:
                leaf.count.add_(1)

    def direction(self) -> None:
        """Advance the state and form each tensor's direction and grafting target."""
        self._steps = []
        for leaf, grad in zip(self._leaves, self._grads, strict=True):
            if grad is None or grad.numel() == 0:
                continue
            flat = grad.to(self._compute).reshape(-1)
            links = reference.chain_links(torch, flat, self._hyper.band, leaf.chain)
            momentum, stats = (held.to(self._compute) for held in (leaf.momentum.reshape(-1), leaf.stats.reshape(self._hyper.band + 1, -1)))
            u, target, new_momentum, new_stats = reference.direction(torch, flat, momentum, stats, leaf.count, links, self._hyper)
            _store(leaf.momentum.view(-1), new_momentum, leaf, 0, stochastic=True)
            for k, row in enumerate(new_stats):
                _store(leaf.stats.view(self._hyper.band + 1, -1)[k], row, leaf, k + 1, stochastic=True)
            self._steps.append((leaf, u, target))

    def norms(self) -> None:
        """Graft each direction."""
        if self._hyper.graft != "none":
            self._steps = [(leaf, reference.graft(torch, u, target), target) for leaf, u, target in self._steps]

    def update(self) -> None:
        """Write the parameters."""
        for leaf, u, _ in self._steps:
            param = leaf.param.to(torch.promote_types(self._compute, leaf.param.dtype))
            if self._scratch is torch.bfloat16:
                u = u.to(self._scratch).to(self._compute)  # noqa: PLW2901  # what is left of it in the scratch
            decayed = u.reshape(param.shape) + self._hyper.weight_decay * param
            _store(leaf.param, param - self._hyper.lr * decayed, leaf, rounding.PARAM_ROW, stochastic=self._hyper.stochastic_rounding)
        self._steps = []
