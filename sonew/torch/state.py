"""The optimizer's state beside `sonew.layout`: making it, loading it in the type it was saved in, fitting it to another band."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch

from sonew.errors import InvalidConfigError, SonewError
from sonew.layout import COUNT, STATS, VERSION, state_layout
from sonew.torch.shards import is_dtensor, local_of, zeros_state

KEPT: Final = ("band", "backend", "tuning", "capturable", "skip_nonfinite", "counters")  # a checkpoint does not choose them


def fresh_state(param: torch.Tensor, band: int, state_dtype: str) -> dict[str, torch.Tensor]:
    """State of a tensor that has taken no step; DTensors cut like the parameter where it is one."""
    return {
        name: torch.zeros((), dtype=torch.int32, device=local_of(param).device) if name == COUNT else zeros_state(param, spec)
        for name, spec in state_layout(tuple(param.shape), band, state_dtype).items()
    }


def fit_band(param: torch.Tensor, state: MutableMapping[str, Any], band: int) -> None:
    """Fit the statistics to another band: rows beyond it are dropped, rows that are missing start at zero.

    New couplings grow in as the old averages fade: the zeros count as averages of as many steps as the tensor has taken, and
    where a window with them is not positive its column falls back until they have caught up. A state of any other shape is left to
    the check that every plan makes.
    """
    stats = state.get(STATS)
    if not isinstance(stats, torch.Tensor) or tuple(stats.shape[1:]) != tuple(param.shape) or stats.shape[0] in (0, band + 1):
        return
    if not stats.is_floating_point() or is_dtensor(stats) != is_dtensor(param):
        return
    spec = state_layout(tuple(param.shape), band, str(stats.dtype).removeprefix("torch."))[STATS]
    fitted, rows = zeros_state(param, spec), min(stats.shape[0], band + 1)
    local_of(fitted)[:rows].copy_(local_of(stats)[:rows])
    state[STATS] = fitted


def follow_device(param: torch.Tensor, state: MutableMapping[str, Any]) -> None:
    """Bring state to where its parameter went, as after `model.to(device)` or a load from another device."""
    if is_dtensor(param):
        return
    for name, value in state.items():
        if isinstance(value, torch.Tensor) and value.device != param.device:
            state[name] = value.to(param.device)


def check_versions(groups: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a state dict of a layout that this package does not know, with InvalidConfigError."""
    for group in groups:
        version = group.get("layout_version", VERSION)
        if version != VERSION:
            msg = (
                f"layout_version={version!r} in the state dict is not {VERSION}, the one that this version of sonew reads. "
                "Update sonew, or save the state dict again with the version that wrote it."
            )
            raise InvalidConfigError(msg)


@contextmanager
def loading(optimizer: torch.optim.Optimizer, own: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """Around torch's `load_state_dict`: afterwards groups hold their `own` settings, and state the type it was saved in.

    torch casts floating state to the parameter's type. Its hooks are the way around: one comes last before the load and sees what users'
    hooks made of the dict, one comes first after it, before users' hooks see the state.

    Raises:
        InvalidConfigError: a layout that this package does not know.
        SonewError: torch did not call the hooks.
    """
    found: list[Mapping[str, Any]] = []
    restored: list[bool] = []

    def keep(_optimizer: torch.optim.Optimizer, loaded: dict[str, Any]) -> None:
        check_versions(loaded["param_groups"])
        found.append(loaded)

    def restore(_optimizer: torch.optim.Optimizer) -> None:
        for group, kept in zip(optimizer.param_groups, own, strict=True):
            group.update(kept)
        for loaded in found:
            _restore_types(optimizer, loaded)
            restored.append(True)

    with optimizer.register_load_state_dict_pre_hook(keep), optimizer.register_load_state_dict_post_hook(restore, prepend=True):
        yield
    if not restored:
        msg = "this torch did not call the hooks of load_state_dict: state may have been cast to the parameters' type. Update sonew."
        raise SonewError(msg)


def _restore_types(optimizer: torch.optim.Optimizer, loaded: Mapping[str, Any]) -> None:
    """Put back the values of a loaded state dict as they were saved: torch casts floating state to the parameter's type."""
    saved_ids = [index for group in loaded["param_groups"] for index in group["params"]]
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for index, param in zip(saved_ids, params, strict=True):
        for name, value in loaded["state"].get(index, {}).items():
            if isinstance(value, torch.Tensor):
                home = local_of(param).device
                optimizer.state[param][name] = value.detach().to(home).clone(memory_format=torch.contiguous_format)
