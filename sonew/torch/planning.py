"""Planning: from the tensors of a parameter group to launch groups, each with a backend and a configuration."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch

from sonew.backends.table import Leaf, direction_elements
from sonew.config import Hyper, Problem
from sonew.dispatch import CapturableStepGroup, load_step_group, make_plan, requested_backend, split_launch_groups
from sonew.errors import InvalidConfigError, UnsupportedProblemError
from sonew.layout import COUNT, MOMENTUM, STATS, BufferSpec, state_layout
from sonew.sharding import Piece
from sonew.torch.agreement import agree, in_turn
from sonew.torch.groups import LaunchGroup, Member, Signature, States, Tally
from sonew.torch.shards import Layout, Neighbours, check_not_flat, is_cut_like, is_dtensor, layout_of, local_of

PARAM_DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def dtype_name(dtype: torch.dtype | str) -> str:
    """The type's name without its module: "bfloat16"."""
    return str(dtype).removeprefix("torch.")


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
    check_not_flat(param)


def check_grad(param: torch.Tensor) -> None:
    """Refuse a gradient that cannot be read, with UnsupportedProblemError."""
    grad = param.grad
    if grad is not None and is_dtensor(grad) != is_dtensor(param):
        kinds = type(param.data).__name__, type(grad).__name__
        msg = (
            f"a parameter of type {kinds[0]} has a gradient of type {kinds[1]}: both or neither must be DTensors. Distribute the gradient."
        )
        raise UnsupportedProblemError(msg)
    if grad is not None and grad.layout != torch.strided:
        msg = f"SONew does not support sparse gradients, got layout {grad.layout}. Use sparse=False in the embedding."
        raise UnsupportedProblemError(msg)


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A parameter to be planned; `size` is what all processes that hold a part of it reckon with."""

    param: torch.Tensor
    signature: Signature
    layout: Layout
    size: int

    @property
    def launched_with(self) -> tuple[Any, ...]:
        """What the tensors of one launch group have in common."""
        return (local_of(self.param).device, self.signature.dtype, self.signature.grad_dtype, is_dtensor(self.param), self.layout.home)


def plan_group(states: States, group: Mapping[str, Any], hyper: Hyper, seeds: Mapping[torch.Tensor, int]) -> list[LaunchGroup]:
    """Sort a parameter group's tensors that have state by device, type and sharding, cut them into launch groups, and plan each.

    Args:
        states: each tensor's state, keyed as in `sonew.layout`.
        group: the parameter group: `params`, `state_dtype`, `direction_dtype`, `backend`, `tuning`, `counters`.
        hyper: its settings.
        seeds: each tensor's seed of stochastic rounding.

    Raises:
        InvalidConfigError: a state that is not what its tensor needs.
        UnsupportedProblemError: a sparse gradient, or a sharding that cannot be exact.
        BackendUnavailableError: an explicit backend that cannot run here.
    """
    classes: dict[tuple[Any, ...], list[_Tensor]] = {}
    for param in group["params"]:
        if states.get(param):
            check_grad(param)
            tensor = _tensor(param, group, hyper)
            classes.setdefault(tensor.launched_with, []).append(tensor)
    launches = []
    for tensors in classes.values():
        splits = split_launch_groups([tensor.size for tensor in tensors])
        needed = max(direction_elements([tensors[i].layout.piece.length for i in split]) for split in splits)
        device = local_of(tensors[0].param).device
        buffer = torch.zeros(max(1, needed), dtype=getattr(torch, group["direction_dtype"]), device=device)
        launches += [_plan_launch(states, [tensors[i] for i in split], group, hyper, seeds, buffer) for split in splits]
    return launches


def _tensor(param: torch.Tensor, group: Mapping[str, Any], hyper: Hyper) -> _Tensor:
    rounded = hyper.stochastic_rounding and param.dtype is torch.bfloat16
    layout = layout_of(param, hyper.chain, hyper.band, stochastic=rounded or group["state_dtype"] == "bfloat16")
    parts = math.prod(layout.splits[i].parts for i in layout.cut)
    return _Tensor(param, Signature.of(param), layout, -(-param.numel() // parts))


def _plan_launch(
    states: States,
    tensors: Sequence[_Tensor],
    group: Mapping[str, Any],
    hyper: Hyper,
    seeds: Mapping[torch.Tensor, int],
    buffer: torch.Tensor,
) -> LaunchGroup:
    members = tuple(_member(states, tensor, group, hyper, seeds[tensor.param]) for tensor in tensors)
    leaves = tuple(member.leaf for member in members)
    device = leaves[0].param.device
    problem = _problem(tensors, device, group, hyper)
    counted = group["counters"]
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():  # the plan is for this GPU, not for the current one
        request = requested_backend(group["backend"])
        plan = agree(problem, request, group["tuning"], lambda: make_plan(problem, backend=request, tuning=group["tuning"]))
        stepper = load_step_group(plan)(leaves, plan, direction=buffer, counted=counted)
        layouts = [tensor.layout for tensor in tensors]
        launch = LaunchGroup(
            members,
            plan,
            stepper,
            capturable=stepper if isinstance(stepper, CapturableStepGroup) else None,
            neighbours=Neighbours(layouts, leaves, stepper) if layouts[0].home else None,
            tally=Tally.zeros(len(members), device) if counted else None,
        )
        in_turn(plan, lambda: launch.warm_up(hyper))
        return launch


def _problem(tensors: Sequence[_Tensor], device: torch.device, group: Mapping[str, Any], hyper: Hyper) -> Problem:
    """The launch group in names and sizes that all its processes agree on."""
    signature, sizes = tensors[0].signature, [tensor.size for tensor in tensors]
    compute = "float64" if group["state_dtype"] == "float64" else "float32"
    coupled = hyper.weight_decay != 0 and not hyper.decoupled_weight_decay
    return Problem(
        device=device.type,
        band=hyper.band,
        chain="block" if isinstance(hyper.chain, int) else hyper.chain,
        param_dtype=dtype_name(signature.dtype),
        grad_dtype=compute if coupled else dtype_name(signature.grad_dtype),
        state_dtype=group["state_dtype"],
        direction_dtype=group["direction_dtype"],
        total=sum(sizes),
        median=int(statistics.median(sizes)),
    )


def _is_sound(held: object, spec: BufferSpec, param: torch.Tensor, piece: Piece | None) -> bool:
    """Whether kernels may trust a state buffer: cut like the parameter into `piece`, or, where that is None, whole on every rank."""
    if not isinstance(held, torch.Tensor) or tuple(held.shape) != spec.shape or held.dtype is not getattr(torch, spec.dtype):
        return False
    here, size = local_of(held), math.prod(spec.shape)
    if piece is not None:
        if not is_cut_like(held, param):
            return False
        size = math.prod(spec.shape[: len(spec.shape) - param.ndim]) * piece.length
    return here.numel() == size and here.device == local_of(param).device and here.is_contiguous()


def _member(states: States, tensor: _Tensor, group: Mapping[str, Any], hyper: Hyper, seed: int) -> Member:
    """A tensor with its state, which is checked: kernels trust its shapes and types."""
    param, piece = tensor.param, tensor.layout.piece
    state, shape, local = states[param], tuple(param.shape), local_of(param)
    for name, spec in state_layout(shape, hyper.band, group["state_dtype"]).items():
        held = state.get(name)
        if not _is_sound(held, spec, param, None if name == COUNT else piece):
            found = f"{held.dtype} of shape {tuple(held.shape)} on {held.device}" if isinstance(held, torch.Tensor) else repr(held)
            sharded = ", sharded like it," if is_dtensor(param) and name != COUNT else ""
            msg = (
                f"the state of a parameter of shape {shape} has {name}: {found}; band={hyper.band} needs a contiguous {spec.dtype}{sharded}"
                f" of shape {spec.shape} on {local.device}. Keep shape, band and state_dtype, or start from a fresh state."
            )
            raise InvalidConfigError(msg)
    momentum, stats, count = state[MOMENTUM], state[STATS], state[COUNT]
    leaf = Leaf(local, local_of(momentum), local_of(stats), count, piece.chain, seed, piece.start, piece.total)
    placements = tuple(param.placements) if is_dtensor(param) else None  # type: ignore[attr-defined]  # a DTensor
    return Member(param, (momentum, stats, count), leaf, tensor.signature, leaf.momentum.dtype, placements)
