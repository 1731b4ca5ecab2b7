"""The same algorithm as plain torch operations under torch.compile: what a user gets without kernels of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from sonew import reference
from sonew.config import Hyper
from sonew.layout import MOMENTUM, STATS, state_layout

Tensors = Sequence[torch.Tensor]


def _links(like: torch.Tensor, band: int) -> tuple[torch.Tensor, ...]:
    """`reference.chain_links` of one chain, from indices that a compiler forms on the fly instead of a stored cumulative sum."""
    position = torch.arange(like.shape[0], device=like.device)
    return tuple(position + k < like.shape[0] for k in range(band + 1))


def step_tensors(params: Tensors, grads: Tensors, momenta: Tensors, stats: Tensors, count: torch.Tensor, *, hyper: Hyper) -> None:
    """One step of every tensor, in place; each is one chain.

    Args:
        params, grads, momenta: float32, shapes S. stats: (band + 1, *S), none of them empty.
        count: steps taken so far, a float32 scalar on the device, shared by all tensors.
        hyper: `graft`, `chain` and `stochastic_rounding` are not read: adam, tensor and off.
    """
    numbers = reference.decay_numbers(hyper)
    count.add_(1)
    first = reference.correction(torch, count, numbers.log_beta1)
    second = reference.correction(torch, count, numbers.log_beta2)
    for param, grad, momentum, held in zip(params, grads, momenta, stats, strict=True):
        flat = grad.reshape(-1)
        links = _links(flat, hyper.band)
        m, h = reference.accumulate(torch, momentum.reshape(-1), held.reshape(hyper.band + 1, -1), flat, links, hyper)
        mean, corrected = m / first, h / second
        lower, diagonal = reference.factor(torch, corrected, links, hyper)
        u = reference.apply(torch, lower, diagonal, mean, links)
        target = reference.graft_target(torch, flat, mean, corrected[0], h[0], hyper)
        u = reference.graft(torch, u, target)
        param.sub_(hyper.lr * (u.reshape(param.shape) + hyper.weight_decay * param))
        momentum.copy_(m.reshape(momentum.shape))
        held.copy_(h.reshape(held.shape))


class CompiledSonew(torch.optim.Optimizer):
    """SONew with float32 state, stepped by `step_tensors` under torch.compile, all tensors in one compiled function.

    Args:
        params: one group of float32 tensors, each with a gradient, none empty.
        lr, band: as in `sonew.torch.SONew`; the other settings are the defaults.
        compiler: torch.compile's backend; "eager" only traces.
    """

    def __init__(self, params: Sequence[torch.Tensor], *, lr: float, band: int, compiler: str = "inductor") -> None:
        super().__init__(params, {"lr": lr, "band": band})
        self._hyper = Hyper(lr=lr, band=band)
        self._count = torch.zeros((), device=params[0].device)
        for param in params:
            layout = state_layout(tuple(param.shape), band)
            self.state[param] = {name: torch.zeros(layout[name].shape, device=param.device) for name in (MOMENTUM, STATS)}
        self._compiled = torch.compile(partial(step_tensors, hyper=self._hyper), fullgraph=True, dynamic=False, backend=compiler)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # torch's takes a closure, which a benchmark has no use for
        """Take one step."""
        del closure
        params = self.param_groups[0]["params"]
        momenta, stats = ([self.state[param][name] for param in params] for name in (MOMENTUM, STATS))
        self._compiled(params, [param.grad for param in params], momenta, stats, self._count)
