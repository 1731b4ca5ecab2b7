"""Optimizer state between `sonew.torch.SONew` and JAX, value by value. torch is not needed here: its tensors tell what they hold.

Both keep the same averages in the same order (`sonew.layout`), so nothing is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sonew.errors import InvalidConfigError
from sonew.jax.settings import check_wide
from sonew.jax.transform import ScaleBySonewState
from sonew.layout import COUNT, MOMENTUM, STATS, VERSION, BufferSpec, state_layout

Order = Any  # a tree like the parameters, of ints or str


def from_torch(state_dict: Mapping[str, Any], params: optax.Params, *, order: Order = None) -> ScaleBySonewState:
    """The state that `SONew.state_dict()` holds, or what `torch.load` made of it.

    A chain's state holds it first::

        tx = sonew(learning_rate=1e-3)
        state = (from_torch(torch.load("optimizer.pt"), params), *tx.init(params)[1:])

    Settings are not taken over: give `sonew` the same band, decays and the rest. Its `seed` gives bfloat16 state other noise than torch's
    where `order` is not the tree's own.

    Chains run through a tensor in row-major order, so a parameter must have the same layout on both sides: statistics of a kernel
    (in, out), as Flax keeps it, cannot be made from those of a torch.nn.Linear (out, in), which averaged other products. Such a shape is
    refused; a square matrix cannot be told from its transpose.

    Args:
        state_dict: with tensors that are whole (of DTensors, `torch.distributed.checkpoint.state_dict` makes such ones).
        params: a tree of arrays or of `jax.ShapeDtypeStruct`; the state is whole, and on the default device.
        order: which of torch's parameters each one is: its position, counted through all groups, or its name, if the state dict
            has names; None: the tree's leaves are torch's parameters one after the other.

    Raises:
        InvalidConfigError: parameters that are not there, of another shape or band, or that took different numbers of steps: JAX counts
            once for all, because every update has a gradient for each.
    """
    structure: Any
    tree, structure = jax.tree_util.tree_flatten_with_path(params)
    paths = [jax.tree_util.keystr(path) or "the root" for path, _ in tree]
    held = _select(state_dict, paths, None if order is None else structure.flatten_up_to(order))
    count = _count(held)
    buffers = [{name: _array(state[name]) for name in (MOMENTUM, STATS)} for state in held.values()]
    band, dtype = len(buffers[0][STATS]) - 1, str(buffers[0][MOMENTUM].dtype)
    check_wide(dtype)
    for (_, leaf), path, arrays in zip(tree, paths, buffers, strict=True):
        _check(path, arrays, state_layout(jnp.shape(leaf), band, dtype))
    momentum, stats = ([jnp.array(arrays[name]) for arrays in buffers] for name in (MOMENTUM, STATS))
    return ScaleBySonewState(jnp.array(count, jnp.int32), structure.unflatten(momentum), structure.unflatten(stats))


def to_torch(state: ScaleBySonewState, *, order: Order = None) -> dict[Any, dict[str, jax.Array]]:
    """The entry "state" of a `SONew.state_dict()`, with arrays in place of tensors: each in a buffer of its own, on a CPU.

    Back into an optimizer::

        saved = optimizer.state_dict()
        saved["state"] = jax.tree.map(torch.from_dlpack, to_torch(state))
        optimizer.load_state_dict(saved)

    What `from_torch` says of settings and layouts holds here too. The optimizer keeps its band: `load_state_dict` fits the statistics.

    Args:
        state: of `scale_by_sonew`; that of `sonew` has it first: `state[0]`. Its arrays must be addressable from this process.
        order: as in `from_torch`, but positions only.
    """
    structure: Any
    momentum, structure = jax.tree.flatten(state.momentum)
    chosen = range(len(momentum)) if order is None else structure.flatten_up_to(order)
    columns = zip(chosen, momentum, structure.flatten_up_to(state.stats), strict=True)
    home = jax.local_devices(backend="cpu")[0]

    def placed(array: jax.Array) -> jax.Array:
        copy: jax.Array = jax.device_put(np.array(array), home)
        return copy

    return {i: {MOMENTUM: placed(mean), STATS: placed(rows), COUNT: placed(state.count)} for i, mean, rows in columns}


def _select(state_dict: Mapping[str, Any], paths: Sequence[str], order: Sequence[int | str] | None) -> dict[str, Mapping[str, Any]]:
    """torch's state of each parameter, by its path; empty where it was never stepped.

    Raises:
        InvalidConfigError: a layout that this version does not know, or a parameter that is not there.
    """
    keys: list[Any] = []
    named: dict[Any, Any] = {}
    for group in state_dict["param_groups"]:
        if group.get("layout_version") != VERSION:
            msg = (
                f"layout_version={group.get('layout_version')!r} in the state dict is not {VERSION}, the one that this version of sonew "
                "reads. Pass the state dict of a sonew.torch.SONew, saved by this version."
            )
            raise InvalidConfigError(msg)
        keys += group["params"]
        named |= dict(zip(group.get("param_names", ()), group["params"], strict=False))
    named |= dict(enumerate(keys))
    if order is None and len(keys) != len(paths):
        msg = f"the tree has {len(paths)} parameters, the state dict {len(keys)}, which is not allowed. Say by `order` which are meant."
        raise InvalidConfigError(msg)
    chosen = range(len(paths)) if order is None else order
    for path, which in zip(paths, chosen, strict=True):
        if which not in named:
            msg = f"order names {which!r} for {path}, which is not allowed: it must be one of {list(named)}. Correct it."
            raise InvalidConfigError(msg)
    return {path: state_dict["state"].get(named[which], {}) for path, which in zip(paths, chosen, strict=True)}


def _count(held: Mapping[str, Mapping[str, Any]]) -> int:
    """The steps that all parameters took, with InvalidConfigError where they differ."""
    counts = {path: int(_array(state[COUNT])) if state else 0 for path, state in held.items()}
    if len(set(counts.values())) > 1 or not all(counts.values()):
        msg = (
            f"the parameters took these numbers of steps, {counts}, which is not allowed: JAX keeps one count, of at least one step. "
            "Convert those with equal counts, and step the others by a transformation of their own (optax.partition)."
        )
        raise InvalidConfigError(msg)
    return max(counts.values())


def _array(tensor: Any) -> np.ndarray:  # noqa: ANN401  # a torch.Tensor, which is not imported here
    """A tensor's values in its own type; numpy lacks bfloat16, float32 holds it."""
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        return np.asarray(tensor.float().numpy()).astype(jnp.bfloat16)
    return np.asarray(tensor.numpy())


def _check(path: str, arrays: Mapping[str, np.ndarray], layout: Mapping[str, BufferSpec]) -> None:
    """Refuse buffers that are not the state of this layout."""
    found = {name: (array.shape, str(array.dtype)) for name, array in arrays.items()}
    wanted = {name: (layout[name].shape, layout[name].dtype) for name in arrays}
    if found != wanted:
        msg = (
            f"the state for {path} is {found}, which is not allowed: it must be {wanted}, as its shape and the first parameter's band and "
            "type say. A transposed layout, as of a torch.nn.Linear's weight beside a Flax kernel, has other chains and cannot be "
            "converted; parameters of another band or type need a transformation of their own (optax.partition)."
        )
        raise InvalidConfigError(msg)
