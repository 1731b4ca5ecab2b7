"""Launch groups of torch tensors: which tensors are stepped by the same launches, under which plan, and when that plan is stale."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch

from sonew.backends.table import Leaf, direction_elements
from sonew.config import Hyper, Plan, Problem, chain_length
from sonew.dispatch import CapturableStepGroup, StepGroup, load_step_group, make_plan, split_launch_groups, step
from sonew.errors import InvalidConfigError, UnsupportedProblemError
from sonew.layout import COUNT, MOMENTUM, STATS, state_layout

PARAM_DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
States = Mapping[torch.Tensor, Mapping[str, Any]]


def dtype_name(dtype: torch.dtype | str) -> str:
    """The type's name without its module: "bfloat16"."""
    return str(dtype).removeprefix("torch.")


class Signature(NamedTuple):
    """What a plan relies on: a change of it means a new plan."""

    dtype: torch.dtype
    device: torch.device
    shape: torch.Size
    grad_dtype: torch.dtype
    grad_layout: torch.layout

    def describes(self, param: torch.Tensor, grad: torch.Tensor) -> bool:
        """Whether nothing changed; called for every tensor in every step, so field by field and without a new tuple."""
        same_param = param.dtype is self.dtype and param.shape == self.shape and param.device == self.device
        return same_param and grad.dtype is self.grad_dtype and grad.layout is self.grad_layout


def _signature(param: torch.Tensor) -> Signature:
    grad = param if param.grad is None else param.grad
    return Signature(param.dtype, param.device, param.shape, grad.dtype, grad.layout)


@dataclass(frozen=True, slots=True)
class LaunchGroup:
    """Parameters stepped by the same launches, with what was true of them when the plan was made.

    `capturable` is the stepper where it can serve a CUDA graph, None elsewhere.
    """

    leaves: tuple[Leaf, ...]
    signatures: tuple[Signature, ...]
    plan: Plan
    stepper: StepGroup
    capturable: CapturableStepGroup | None

    @property
    def device(self) -> torch.device:
        """Where all its tensors lie."""
        return self.signatures[0].device

    def grads(self) -> list[torch.Tensor | None]:
        """This step's gradients, in the order of the leaves."""
        return [leaf.param.grad for leaf in self.leaves]

    def reads(self, lr: torch.Tensor) -> bool:
        """Whether the launches read this step size where it lies, so that the host need not."""
        return self.capturable is not None and lr.dtype is torch.float32 and lr.device == self.device

    def is_stale(self, states: States) -> bool:
        """Whether a tensor that has a gradient, or its state, is no longer what the plan was made for."""
        for leaf, signature in zip(self.leaves, self.signatures, strict=True):
            grad = leaf.param.grad
            if grad is not None:
                held = states[leaf.param]
                known = leaf.momentum is held.get(MOMENTUM) and leaf.stats is held.get(STATS) and leaf.count is held.get(COUNT)
                home = leaf.momentum.device == leaf.stats.device == signature.device  # state that was offloaded keeps its identity
                if not (known and home and signature.describes(leaf.param, grad)):
                    return True
        return False

    def step(self, *, capturable: bool) -> None:
        """Take one step, and make ready for a capture to follow where asked."""
        self.stepper.bind(self.grads())
        step(self.stepper)
        if capturable and self.capturable is not None:
            self.capturable.prepare_capture()


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """The launches of a parameter group, with the settings and the parameters they were made for."""

    key: tuple[Any, ...]
    params: tuple[torch.Tensor, ...]
    launches: list[LaunchGroup]

    def covers(self, key: tuple[Any, ...], params: Sequence[torch.Tensor]) -> bool:
        """Whether the settings and the very parameters are the same."""
        return self.key == key and len(self.params) == len(params) and all(map(operator.is_, self.params, params))


def check_param(param: torch.Tensor) -> None:
    """Refuse a parameter that cannot be stepped, with UnsupportedProblemError."""
    if param.dtype not in PARAM_DTYPES:
        kind = "complex parameters" if param.is_complex() else "parameters of this type"
        allowed = [dtype_name(dtype) for dtype in PARAM_DTYPES]
        msg = f"SONew does not support {kind}, got {param.dtype}: use {allowed} or another optimizer."
        raise UnsupportedProblemError(msg)
    if param.layout != torch.strided:
        msg = f"SONew does not support sparse parameters, got layout {param.layout}. Make it dense or put it in another optimizer."
        raise UnsupportedProblemError(msg)


def check_grad(param: torch.Tensor) -> None:
    """Refuse a gradient that cannot be read, with UnsupportedProblemError."""
    grad = param.grad
    if grad is not None and grad.layout != torch.strided:
        msg = f"SONew does not support sparse gradients, got layout {grad.layout}. Use sparse=False in the embedding."
        raise UnsupportedProblemError(msg)


def plan_group(states: States, group: Mapping[str, Any], hyper: Hyper, seeds: Mapping[torch.Tensor, int]) -> list[LaunchGroup]:
    """Sort a parameter group's tensors that have state by device and type, cut them into launch groups, and plan each.

    Args:
        states: each tensor's state, keyed as in `sonew.layout`.
        group: the parameter group: `params`, `state_dtype`, `direction_dtype`, `backend`, `tuning`.
        hyper: its settings.
        seeds: each tensor's seed of stochastic rounding.

    Raises:
        InvalidConfigError: a state that is not what its tensor needs.
        UnsupportedProblemError: a sparse gradient.
        BackendUnavailableError: an explicit backend that cannot run here.
    """
    classes: dict[tuple[Any, ...], list[torch.Tensor]] = {}
    for param in group["params"]:
        if states.get(param):
            check_grad(param)
            signature = _signature(param)
            classes.setdefault((signature.device, signature.dtype, signature.grad_dtype), []).append(param)
    launches = []
    for params in classes.values():
        lengths = [param.numel() for param in params]
        splits = split_launch_groups(lengths)
        needed = max(direction_elements([lengths[i] for i in split]) for split in splits)
        buffer = torch.zeros(max(1, needed), dtype=getattr(torch, group["direction_dtype"]), device=params[0].device)
        launches += [_plan_launch(states, [params[i] for i in split], group, hyper, seeds, buffer) for split in splits]
    return launches


def _plan_launch(
    states: States,
    params: Sequence[torch.Tensor],
    group: Mapping[str, Any],
    hyper: Hyper,
    seeds: Mapping[torch.Tensor, int],
    buffer: torch.Tensor,
) -> LaunchGroup:
    lengths = [param.numel() for param in params]
    signatures = tuple(_signature(param) for param in params)
    problem = Problem(
        device=params[0].device.type,
        band=hyper.band,
        chain="block" if isinstance(hyper.chain, int) else hyper.chain,
        param_dtype=dtype_name(signatures[0].dtype),
        grad_dtype=dtype_name(signatures[0].grad_dtype),
        state_dtype=group["state_dtype"],
        direction_dtype=group["direction_dtype"],
        total=sum(lengths),
        median=int(statistics.median(lengths)),
    )
    leaves = tuple(_leaf(states, param, group, hyper, seeds[param]) for param in params)
    device = params[0].device
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():  # the plan is for this GPU, not for the current one
        plan = make_plan(problem, framework="torch", backend=group["backend"], tuning=group["tuning"])
        stepper = load_step_group(plan)(leaves, plan, direction=buffer)
        return LaunchGroup(leaves, signatures, plan, stepper, stepper if isinstance(stepper, CapturableStepGroup) else None)


def _leaf(states: States, param: torch.Tensor, group: Mapping[str, Any], hyper: Hyper, seed: int) -> Leaf:
    """A tensor with its state, which is checked: kernels trust its shapes and types."""
    state, shape = states[param], tuple(param.shape)
    for name, spec in state_layout(shape, hyper.band, group["state_dtype"]).items():
        held = state.get(name)
        wanted = (spec.shape, getattr(torch, spec.dtype), param.device)
        if not isinstance(held, torch.Tensor) or (tuple(held.shape), held.dtype, held.device) != wanted or not held.is_contiguous():
            found = f"{held.dtype} of shape {tuple(held.shape)}" if isinstance(held, torch.Tensor) else repr(held)
            msg = (
                f"the state of a parameter of shape {shape} has {name}: {found}; band={hyper.band} needs a contiguous {spec.dtype} "
                f"of shape {spec.shape} on {param.device}. Keep shape, band and state_dtype, or start from a fresh state."
            )
            raise InvalidConfigError(msg)
    return Leaf(param, state[MOMENTUM], state[STATS], state[COUNT], chain_length(hyper.chain, shape), seed)
