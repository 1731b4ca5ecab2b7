"""How many columns of the preconditioner fall back: the share whose window was not positive, so that their couplings were dropped."""

from __future__ import annotations

import torch

from sonew import reference
from sonew.config import COMPUTE_DTYPE, Hyper, chain_length
from sonew.layout import COUNT, MOMENTUM, STATS


@torch.no_grad()
def fallback_share(optimizer: torch.optim.Optimizer) -> float | None:
    """Share of the coupled columns that fall back in the coming step; call it between backward and step.

    A column counts as coupled where its statistics tie it to a neighbour, so elements that never see a gradient do not count.
    The averages are formed as the step forms them: in the type of computation, from the stored ones. None where nothing is coupled.

    Args:
        optimizer: a `sonew.torch.SONew` that has taken a step.
    """
    coupled = fallen = 0
    for group in optimizer.param_groups:
        names = ("band", "eps", "eps_rel", "gamma")
        hyper = Hyper(beta1=group["betas"][0], beta2=group["betas"][1], **{name: group[name] for name in names})
        compute = getattr(torch, COMPUTE_DTYPE[group["state_dtype"]])
        for param in group["params"]:
            state = optimizer.state.get(param)
            if param.grad is None or not state or hyper.band == 0:
                continue
            grad = param.grad.reshape(-1).to(compute)
            links = reference.chain_links(torch, grad, hyper.band, chain_length(group["chain"], tuple(param.shape)))
            held = (state[MOMENTUM].reshape(-1).to(compute), state[STATS].reshape(hyper.band + 1, -1).to(compute))
            _, stats = reference.accumulate(torch, *held, grad, links, hyper)
            corrected = stats / reference.correction(torch, (state[COUNT] + 1).to(compute), reference.decay_numbers(hyper).log_beta2)
            lower, _ = reference.factor(torch, corrected, links, hyper)
            tied = torch.stack([row != 0 for row in corrected[1:]]).any(0)
            dropped = torch.stack([column == 0 for column in lower]).all(0)
            coupled += int(tied.sum())
            fallen += int((tied & dropped).sum())
    return fallen / coupled if coupled else None
