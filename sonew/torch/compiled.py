"""Steps inside `torch.compile`: the graph holds one opaque operator, which takes the optimizer's ordinary step when the graph runs.

Its arguments are what a graph may have changed before the step: parameters, gradients, step sizes that are tensors, and the
signals. State and all other settings are none of the graph's business: the step reads them when it runs, so nothing is compiled
anew when a scheduler changes a number.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

import torch

from sonew.errors import CaptureError
from sonew.torch.shards import is_dtensor, local_grad, local_of

SCHEMA: Final = (
    "step(Tensor(a!)[] params, Tensor[] grads, int[] places, Tensor[] rates, int[] rate_groups, "
    "Tensor? total_norm, Tensor? grad_scale, Tensor? found_inf, int handle) -> ()"
)


class Steppable(Protocol):
    """What the operator needs of an optimizer.

    Attributes:
        param_groups: dictionaries with `params` and `lr`.
        _handle: what `register` gave it.
    """

    param_groups: list[dict[str, Any]]
    _handle: int

    def _take_step(self, total_norm: torch.Tensor | None, grad_scale: torch.Tensor | None, found_inf: torch.Tensor | None) -> None:
        """The ordinary step: reads each parameter's `grad`, writes parameters and state in place."""


_registered: Final[WeakValueDictionary[int, Steppable]] = WeakValueDictionary()
_handles: Final = itertools.count()
_defining: Final = Lock()


def register(optimizer: Steppable) -> int:
    """A handle under which graphs find this optimizer as long as it lives. The first call defines the operator."""
    with _defining:
        _define()
    handle = next(_handles)
    _registered[handle] = optimizer
    return handle


@cache
def _define() -> torch.library.Library:
    """The operator `sonew::step`, which stays defined as long as the returned object."""
    library = torch.library.Library("sonew", "FRAGMENT")  # with `torch.library.custom_op` a call costs the host 0.1 ms more
    # a CUDA graph that the compiler makes unasked would hold the state of the first step and the settings of its capture
    library.define(SCHEMA, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.cudagraph_unsafe))
    library.impl("step", _run, "CompositeExplicitAutograd")
    torch.library.register_fake("sonew::step", lambda *_: None, lib=library)
    return library


def trace_step(
    optimizer: Steppable, total_norm: torch.Tensor | None, grad_scale: torch.Tensor | None, found_inf: torch.Tensor | None
) -> None:
    """Put the step into the graph under construction. The compiler runs this, on tensors that hold no data, within `torch.no_grad`.

    Args:
        optimizer: a registered one.
        total_norm, grad_scale, found_inf: the step's signals.
    """
    if total_norm is not None and is_dtensor(total_norm):
        total_norm = total_norm.full_tensor()  # type: ignore[attr-defined]  # a DTensor
    params: list[torch.Tensor] = []
    grads: list[torch.Tensor] = []
    places: list[int] = []
    rates: list[torch.Tensor] = []
    rate_groups: list[int] = []
    place = 0
    # not `optimizer.param_groups`: for that attribute of an optimizer the compiler has a rule that makes every number a guard
    for index, group in enumerate(vars(optimizer)["param_groups"]):
        if torch.is_tensor(group["lr"]):  # looks at the type alone; isinstance makes a float a guard
            rates.append(group["lr"])
            rate_groups.append(index)
        for param in group["params"]:
            grad = param.grad
            if grad is not None:
                params.append(local_of(param))
                grads.append(local_grad(param, grad))
                places.append(place)
            place += 1
    handle = optimizer._handle  # noqa: SLF001  # the surface's own
    torch.ops.sonew.step(params, grads, places, rates, rate_groups, total_norm, grad_scale, found_inf, handle)


@torch.no_grad()
def _run(
    params: Sequence[torch.Tensor],
    grads: Sequence[torch.Tensor],
    places: Sequence[int],
    rates: Sequence[torch.Tensor],
    rate_groups: Sequence[int],
    total_norm: torch.Tensor | None,
    grad_scale: torch.Tensor | None,
    found_inf: torch.Tensor | None,
    handle: int,
) -> None:
    """The operator. The compiler may hand over copies of what the graph writes: their values count, and the results go there too.

    Raises:
        CaptureError: the optimizer is gone.
    """
    optimizer = _registered.get(handle)
    if optimizer is None:
        msg = f"a compiled step belongs to an optimizer that is gone (handle={handle}): keep it as long as the graph, or compile anew."
        raise CaptureError(msg)
    own = [param for group in optimizer.param_groups for param in group["params"]]
    copies = [(local_of(own[place]), given) for place, given in zip(places, params, strict=True) if not _holds(own[place], given)]
    with _lend_grads(own, dict(zip(places, grads, strict=True))), _lend_rates(optimizer.param_groups, rate_groups, rates):
        for param, copy in copies:
            param.copy_(copy)
        optimizer._take_step(total_norm, grad_scale, found_inf)  # noqa: SLF001  # the surface's own
        for param, copy in copies:
            copy.copy_(param)
    vars(optimizer)["_opt_called"] = True  # schedulers ask, and a compiled step may go past the wrapper with which they find out


def _holds(own: torch.Tensor, given: torch.Tensor) -> bool:
    """Whether a tensor of the optimizer is the given one: the same memory, seen in the same way."""
    if own is given:
        return True
    local = local_of(own)
    same_view = local.dtype is given.dtype and local.shape == given.shape and local.stride() == given.stride()
    return same_view and local.data_ptr() == given.data_ptr()


@contextmanager
def _lend_grads(params: Sequence[torch.Tensor], grads: dict[int, torch.Tensor]) -> Iterator[None]:
    """The graph's gradients in place of those that the parameters have outside of it, where they are others."""
    before = []
    for place, param in enumerate(params):
        held, given = param.grad, grads.get(place)
        if held is given or (held is not None and given is not None and _holds(held, given)):
            continue
        before.append((param, held))
        param.grad = _as_dtensor(given, param) if given is not None and is_dtensor(param) else given
    try:
        yield
    finally:
        for param, held in before:
            param.grad = held


def _as_dtensor(local: torch.Tensor, like: Any) -> torch.Tensor:  # noqa: ANN401  # a DTensor, whose module is not loaded for plain tensors
    """The DTensor of this local part that is cut like another one."""
    dtensor: torch.Tensor = type(like).from_local(local, like.device_mesh, like.placements, shape=like.shape, stride=like.stride())
    return dtensor


@contextmanager
def _lend_rates(groups: Sequence[dict[str, Any]], places: Sequence[int], rates: Sequence[torch.Tensor]) -> Iterator[None]:
    """The graph's step sizes in place of those that the groups have outside of it, where they are others."""
    pairs = [(groups[place], rate) for place, rate in zip(places, rates, strict=True)]
    before = [(group, group["lr"], rate) for group, rate in pairs if not (torch.is_tensor(group["lr"]) and _holds(group["lr"], rate))]
    for group, _, rate in before:
        group["lr"] = rate
    try:
        yield
    finally:
        for group, held, _ in before:
            group["lr"] = held
