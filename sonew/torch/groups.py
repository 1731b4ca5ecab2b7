"""Launch groups of torch tensors: which tensors are stepped by the same launches, how a step goes, and when the plan is stale."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from sonew.backends.table import Leaf, gradient_sign
from sonew.config import Hyper, Plan
from sonew.dispatch import CapturableStepGroup, StepGroup, step
from sonew.layout import COUNT, MOMENTUM, STATS
from sonew.torch.shards import Neighbours, local_grad, local_of
from sonew.torch.signals import Signals

States = Mapping[torch.Tensor, Mapping[str, Any]]


class Signature(NamedTuple):
    """What a plan relies on: a change of it means a new plan."""

    dtype: torch.dtype
    device: torch.device
    shape: torch.Size
    grad_dtype: torch.dtype
    grad_layout: torch.layout
    grad_type: type

    @classmethod
    def of(cls, param: torch.Tensor) -> Signature:
        """The parameter's; one without a gradient is taken for its own."""
        grad = param.data if param.grad is None else param.grad
        return cls(param.dtype, param.device, param.shape, grad.dtype, grad.layout, type(grad))

    def describes(self, param: torch.Tensor, grad: torch.Tensor) -> bool:
        """Whether nothing changed; called for every tensor in every step, so field by field and without a new tuple."""
        same_param = param.dtype is self.dtype and param.shape == self.shape and param.device == self.device
        return same_param and (grad.dtype, grad.layout, type(grad)) == (self.grad_dtype, self.grad_layout, self.grad_type)


@dataclass(frozen=True, slots=True)
class Member:
    """A parameter in its launch group.

    Attributes:
        param: as the user knows it; `leaf.param` is the part of it that lies here.
        state: its momentum, stats and count when the plan was made, as the user knows them.
        leaf: what the launches step.
        signature: what was true of it. state_dtype: of momentum and stats.
        placements: how it is sharded, None where it is not.
    """

    param: torch.Tensor
    state: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    leaf: Leaf
    signature: Signature
    state_dtype: torch.dtype
    placements: tuple[Any, ...] | None = None

    def is_stale(self, held: Mapping[str, Any], grad: torch.Tensor) -> bool:
        """Whether the parameter or its state is no longer what the plan was made for."""
        momentum, stats, count = self.state
        known = momentum is held.get(MOMENTUM) and stats is held.get(STATS) and count is held.get(COUNT)
        if not (known and self.signature.describes(self.param, grad)):
            return True
        leaf = self.leaf
        if not leaf.momentum.dtype == leaf.stats.dtype == self.state_dtype or not (
            leaf.momentum.is_contiguous() and leaf.stats.is_contiguous()
        ):
            return True
        if self.placements is not None:
            local = local_of(self.param) is leaf.param and local_of(momentum) is leaf.momentum and local_of(stats) is leaf.stats
            if not local or self.param.placements != self.placements:  # type: ignore[attr-defined]  # a DTensor
                return True
        return not leaf.momentum.device == leaf.stats.device == leaf.param.device  # state that was offloaded keeps its identity


_GRAD, _DTYPE, _SHAPE, _LAYOUT = map(operator.attrgetter, ("grad", "dtype", "shape", "layout"))


class Columns:
    """What `Member.is_stale` asks, of all members at once: a pass per question instead of several calls per tensor and step."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = [member for member in members if member.placements is None]
        self._sharded = [member for member in members if member.placements is not None]
        self._params = [member.param for member in self._members]
        self._states = {name: [member.state[i] for member in self._members] for i, name in enumerate((MOMENTUM, STATS, COUNT))}
        self._signatures = {name: [getattr(member.signature, name) for member in self._members] for name in Signature._fields}
        self._devices = self._indices(self._params)
        self._dtypes = [member.state_dtype for member in self._members]

    @staticmethod
    def _indices(tensors: Sequence[torch.Tensor]) -> list[int]:
        return list(map(torch.Tensor.get_device, tensors))  # -1: the host

    def any_stale(self, states: States) -> bool:
        """Whether a tensor that has a gradient, or its state, is no longer what the plan was made for."""
        grads = list(map(_GRAD, self._params))
        members = self._sharded
        if any(grad is None for grad in grads):
            members = [*self._sharded, *self._members]
        elif not self._fresh(states, grads):
            return True
        pairs = [(member, member.param.grad) for member in members]
        return any(grad is not None and member.is_stale(states[member.param], grad) for member, grad in pairs)

    def _fresh(self, states: States, grads: Sequence[torch.Tensor]) -> bool:
        held = list(map(states.__getitem__, self._params))
        known, params, state = self._signatures, self._params, self._states
        return (  # lists of tensors are never compared by ==, which could wait for a GPU
            all(all(map(operator.is_, map(operator.methodcaller("get", name), held), kept)) for name, kept in state.items())
            and list(map(_DTYPE, params)) == known["dtype"]
            and list(map(_SHAPE, params)) == known["shape"]
            and list(map(_DTYPE, grads)) == known["grad_dtype"]
            and list(map(_LAYOUT, grads)) == known["grad_layout"]
            and list(map(type, grads)) == known["grad_type"]
            and list(map(_DTYPE, state[MOMENTUM])) == list(map(_DTYPE, state[STATS])) == self._dtypes
            and all(map(torch.Tensor.is_contiguous, [*state[MOMENTUM], *state[STATS]]))
            and self._indices(params) == self._indices(state[MOMENTUM]) == self._indices(state[STATS]) == self._devices
        )


@dataclass(slots=True)
class Tally:
    """Counters of one launch group on its device, float64 (n, 2) each.

    Attributes:
        counts: columns that fell back, and steps, since the group was planned.
        sums: of u^2 and a^2 in each tensor's last step.
    """

    counts: torch.Tensor
    sums: torch.Tensor

    @classmethod
    def zeros(cls, tensors: int, device: torch.device) -> Tally:
        """Nothing counted yet."""
        return cls(*(torch.zeros((tensors, 2), dtype=torch.float64, device=device) for _ in range(2)))

    def add(self, counted: torch.Tensor, sums: torch.Tensor) -> None:
        """Count a step; a tensor that was skipped or had no gradient keeps its sums."""
        self.counts.add_(counted)
        self.sums.copy_(torch.where(counted[:, 1:] > 0, sums, self.sums))


@dataclass(frozen=True, slots=True)
class LaunchGroup:
    """Parameters stepped by the same launches, with what was true of them when the plan was made.

    Attributes:
        members: the parameters.
        plan, stepper: how they are stepped; `capturable` is the stepper where it can serve a CUDA graph, None elsewhere.
        neighbours: what sharded parameters exchange with other processes, None where all are whole.
        tally: counters, None unless asked for.
    """

    members: tuple[Member, ...]
    plan: Plan
    stepper: StepGroup
    capturable: CapturableStepGroup | None
    neighbours: Neighbours | None = None
    tally: Tally | None = None
    device: torch.device = field(init=False)

    def __post_init__(self) -> None:
        """Note where all tensors lie."""
        object.__setattr__(self, "device", self.members[0].leaf.param.device)

    def grads(self) -> list[torch.Tensor | None]:
        """This step's gradients as far as they lie here, in the order of the members. Within `torch.no_grad`."""
        if self.members[0].placements is None:
            return [member.param.grad for member in self.members]
        pairs = [(member.param, member.param.grad) for member in self.members]
        return [None if grad is None else local_grad(param, grad) for param, grad in pairs]

    def written(self) -> list[torch.Tensor]:
        """What a step writes, for autograd: parameters with a gradient, and the local parts of sharded ones."""
        stepped = [member for member in self.members if member.param.grad is not None]
        params = [member.param for member in stepped]
        return params if self.members[0].placements is None else [*params, *(member.leaf.param for member in stepped)]

    def reads(self, lr: torch.Tensor) -> bool:
        """Whether the launches read this step size where it lies, so that the host need not."""
        return self.capturable is not None and lr.dtype is torch.float32 and lr.device == self.device

    def step(self, hyper: Hyper, signals: Signals, *, capturable: bool) -> None:
        """Take one step, and make ready for a capture to follow where asked."""
        grad_scale, skip = signals.on(self.device)
        grads = self._decayed(self.grads(), hyper, grad_scale)
        self.stepper.bind(grads)
        self.run(grads, hyper, grad_scale, skip)
        if capturable and self.capturable is not None:
            self.capturable.prepare_capture()

    def run(self, grads: Sequence[torch.Tensor | None], hyper: Hyper, grad_scale: torch.Tensor | None, skip: torch.Tensor | None) -> None:
        """The phases of a bound step, with what sharded tensors exchange between them."""
        stepper, neighbours, sums = self.stepper, self.neighbours, None
        stepper.signal(grad_scale, skip)
        if neighbours is None:
            step(stepper)
        else:
            stepper.prologue()
            neighbours.exchange(grads)
            stepper.direction()
            if hyper.graft == "none":
                stepper.norms()
            else:
                sums = neighbours.reduce(stepper.sums())
                stepper.take_sums(sums)
            stepper.update()
        if self.tally is not None:
            self.tally.add(stepper.counted(), stepper.sums() if sums is None else sums)

    def warm_up(self, hyper: Hyper) -> None:
        """Compile and load whatever a step launches: one step in which no tensor takes part. No collective, no value changes."""
        self.stepper.set_hyper(hyper)
        self.stepper.bind([None] * len(self.members))
        step(self.stepper)

    def _decayed(self, grads: list[torch.Tensor | None], hyper: Hyper, grad_scale: torch.Tensor | None) -> list[torch.Tensor | None]:
        """With coupled decay a copy of the gradients plus weight_decay p, such that the launches' sign and loss scale suit both."""
        if hyper.decoupled_weight_decay or hyper.weight_decay == 0:
            return grads
        here = [i for i, grad in enumerate(grads) if grad is not None]
        dtype = getattr(torch, self.plan.problem.grad_dtype)
        pull: float | torch.Tensor = gradient_sign(hyper) * hyper.weight_decay
        if grad_scale is not None:
            pull = pull * grad_scale.reshape(()).to(dtype)
        decayed: list[torch.Tensor | None] = [None] * len(grads)
        for i in here:
            decayed[i] = grads[i].to(dtype) + pull * self.members[i].leaf.param.to(dtype)  # type: ignore[union-attr]  # `here` has no None
        return decayed


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """The launches of a parameter group, with the settings and the parameters they were made for.

    Attributes:
        key: the settings.
        params: the group's parameters. waiting: those of them that no launch steps, because they had no state yet.
        launches: how the others are stepped.
    """

    key: tuple[Any, ...]
    params: tuple[torch.Tensor, ...]
    launches: list[LaunchGroup]
    waiting: tuple[torch.Tensor, ...] = field(init=False)
    columns: Columns = field(init=False)

    def __post_init__(self) -> None:
        """Note who waits."""
        members = [member for launch in self.launches for member in launch.members]
        object.__setattr__(self, "columns", Columns(members))
        stepped = {member.param for member in members}
        object.__setattr__(self, "waiting", tuple(param for param in self.params if param not in stepped))

    def covers(self, key: tuple[Any, ...], params: Sequence[torch.Tensor], states: States) -> bool:
        """Whether the settings, the very parameters and what the plan relies on are the same, and nobody waits any more."""
        same = self.key == key and len(self.params) == len(params) and all(map(operator.is_, self.params, params))
        wait = all(param.grad is None and not states.get(param) for param in self.waiting)  # `prepare` gives state before a gradient comes
        return same and wait and not self.columns.any_stale(states)
