"""The reference as a torch backend: slow, plain, on any device and in any dtype. It keeps every other backend honest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sonew import reference, rounding
from sonew.backends.sums import graft_scales
from sonew.backends.table import Leaf
from sonew.config import COMPUTE_DTYPE, Hyper, Plan, Problem

KERNEL = ""


def rejects(problem: Problem) -> str | None:  # noqa: ARG001  # the backend protocol's signature; the reference takes every problem
    """Reason why this backend cannot take the problem, or None."""
    return None


def environment() -> dict[str, str | int]:
    """Nothing here is tuned, so nothing identifies the device."""
    return {}


@dataclass(slots=True)
class _Step:
    """One tensor in the middle of a step: its direction (n,) and what it is grafted to."""

    index: int
    leaf: Leaf
    direction: torch.Tensor
    target: torch.Tensor


class StepGroup:
    """Steps a group tensor by tensor with `sonew.reference`, in the phases every backend has.

    Where a step may be skipped, values are chosen on the device, so that the host waits for nothing.
    """

    def __init__(
        self,
        leaves: Sequence[Leaf],
        plan: Plan,
        *,
        direction: torch.Tensor | None = None,  # noqa: ARG002  # protocol
        counted: bool = False,
    ) -> None:
        self._leaves = tuple(leaves)
        self._band, self._counted = plan.problem.band, counted
        self._compute = getattr(torch, COMPUTE_DTYPE[plan.problem.state_dtype])
        self._scratch = getattr(torch, plan.problem.direction_dtype)
        self._hyper = Hyper()
        self._grads: tuple[torch.Tensor | None, ...] = ()
        self._scale: torch.Tensor | None = None
        self._skip: torch.Tensor | None = None
        self._steps: list[_Step] = []
        device = leaves[0].param.device
        # beyond each piece's start and end: old momentum, old stats, gradients
        self._halos = torch.zeros((len(leaves), 2, self._band + 3, self._band), dtype=self._compute, device=device)
        self._sums = torch.zeros((len(leaves), 2), dtype=torch.float64, device=device)
        self._fallen = torch.zeros(len(leaves), dtype=torch.float64, device=device)

    def set_hyper(self, hyper: Hyper) -> None:
        """Settings for the coming steps."""
        self._hyper = hyper

    def bind(self, grads: Sequence[torch.Tensor | None]) -> None:
        """This step's gradients; None leaves the tensor alone."""
        self._grads = tuple(grads)

    def signal(self, grad_scale: torch.Tensor | None, skip: torch.Tensor | None) -> None:
        """Gradients are divided by `grad_scale`; a `skip` that is not 0 leaves everything as it was."""
        self._scale = None if grad_scale is None else grad_scale.reshape(()).to(self._compute)
        self._skip = None if skip is None else skip.reshape(()) != 0

    def halo(self, i: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Where what lies beyond piece i's start (0) or end (1) goes: old momentum and stats (band + 2, band), gradients (band,)."""
        return self._halos[i, side, :-1], self._halos[i, side, -1]

    def prologue(self) -> None:
        """Count the step of every tensor that has a gradient."""
        for leaf, grad in zip(self._leaves, self._grads, strict=True):
            if grad is not None:
                leaf.count.add_(1 if self._skip is None else (~self._skip).to(leaf.count.dtype))

    def direction(self) -> None:
        """Advance the state and form each tensor's direction and grafting target."""
        self._steps = []
        self._sums.zero_()
        self._fallen.zero_()
        for i, (leaf, grad) in enumerate(zip(self._leaves, self._grads, strict=True)):
            if grad is None or grad.numel() == 0:
                continue
            fields, own, links = self._widened(i, leaf, grad)
            gradient, held = self._effective(fields[-1]), (fields[0], fields[1:-1])
            with gradient.device:  # where `asarray` leaves the count, whatever the user's default device
                u, target, momentum, stats = reference.direction(torch, gradient, *held, leaf.count, links, self._hyper)
            if self._counted:
                self._fallen[i] = self._count_fallen(stats, links, leaf.count)[own].sum()
            self._store(leaf.momentum.view(-1), momentum[own], leaf, 0, stochastic=True)
            for k, row in enumerate(stats):
                self._store(leaf.stats.view(self._band + 1, -1)[k], row[own], leaf, k + 1, stochastic=True)
            self._steps.append(_Step(i, leaf, u[own], target[own]))
            self._sums[i] = torch.stack([x.double().square().sum() for x in (u[own], target[own])])

    def norms(self) -> None:
        """Graft each direction."""
        if self._hyper.graft != "none":
            for step in self._steps:
                step.direction = reference.graft(torch, step.direction, step.target)

    def sums(self) -> torch.Tensor:
        """Sums of u^2 and a^2 per tensor, float64 (n, 2)."""
        return self._sums.clone()

    def take_sums(self, sums: torch.Tensor) -> None:
        """In place of `norms`: graft by sums over all pieces of each tensor."""
        scales = graft_scales(sums, grafted=self._hyper.graft != "none").to(self._compute)
        for step in self._steps:
            step.direction = step.direction * scales[step.index] * scales[step.index]

    def counted(self) -> torch.Tensor:
        """Per tensor of the last step, float64 (n, 2): columns that fell back (of a group made with `counted`), whether it was stepped."""
        present = torch.tensor([grad is not None for grad in self._grads], dtype=torch.float64, device=self._fallen.device)
        both = torch.stack((self._fallen, present), 1)
        return both if self._skip is None else torch.where(self._skip, 0.0, both)

    def update(self) -> None:
        """Write the parameters; lr = 0 keeps every bit, of -0 and beside a direction that is not finite too."""
        for step in self._steps if self._hyper.lr else ():
            leaf, u = step.leaf, step.direction
            param = leaf.param.to(torch.promote_types(self._compute, leaf.param.dtype))
            if self._scratch is torch.bfloat16:
                u = u.to(self._scratch).to(self._compute)  # what is left of it in the scratch
            decayed = u.reshape(param.shape) + reference.step_decay(self._hyper) * param
            stochastic = self._hyper.stochastic_rounding
            self._store(leaf.param, param - self._hyper.lr * decayed, leaf, rounding.PARAM_ROW, stochastic=stochastic)
        self._steps = []

    def _widened(self, i: int, leaf: Leaf, grad: torch.Tensor) -> tuple[torch.Tensor, slice, tuple[torch.Tensor, ...]]:
        """Old momentum, old stats and gradient (band + 3, w) with what is needed beyond both ends, the slice of the own elements, links."""
        band, n = self._band, grad.numel()
        rows = (leaf.momentum.reshape(1, -1), leaf.stats.reshape(band + 1, -1), grad.reshape(1, -1))
        fields = torch.cat([row.to(self._compute) for row in rows])
        before = min(band, leaf.start)
        after = min(band, leaf.whole - leaf.start - n)
        left, right = self._halos[i]
        fields = torch.cat((left[:, band - before :], fields, right[:, :after]), dim=1)
        links = reference.chain_links(torch, fields[0], band, leaf.chain, start=leaf.start - before, total=leaf.whole)
        return fields, slice(before, before + n), links

    def _effective(self, gradient: torch.Tensor) -> torch.Tensor:
        scaled = gradient if self._scale is None else gradient * (1.0 / self._scale)
        return -scaled if self._hyper.maximize else scaled

    def _count_fallen(self, stats: torch.Tensor, links: tuple[torch.Tensor, ...], count: torch.Tensor) -> torch.Tensor:
        numbers = reference.decay_numbers(self._hyper)
        corrected = stats / reference.correction(torch, count.to(self._compute), numbers.log_beta2)
        fallen: torch.Tensor = reference.fallen_columns(torch, corrected, links, self._hyper)
        return fallen

    def _store(self, target: torch.Tensor, value: torch.Tensor, leaf: Leaf, row: int, *, stochastic: bool) -> None:
        """Write float32 or float64 values of any shape home, stochastically rounded where asked and the home is bfloat16."""
        if stochastic and target.dtype is torch.bfloat16 and value.numel():
            flat = value.reshape(-1).to(torch.float32)
            index = leaf.start + torch.arange(flat.numel(), dtype=torch.int32, device=flat.device)
            seed = torch.tensor([leaf.seed], dtype=torch.int32, device=flat.device)
            bits = rounding.noise(seed, leaf.count.reshape(1), row, index)
            value = rounding.round_to_bfloat16(torch, flat, bits).reshape(value.shape)
        target.copy_(value if self._skip is None else torch.where(self._skip, target, value.to(target.dtype)))
