"""Optimizers compared to the bit: what they hold, taken as integers, so that -0 and each NaN count too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

INTEGERS: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
READERS: Final = {torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.equal, torch.ops.aten.is_nonzero}
every_backend = pytest.mark.parametrize("backend", ["reference", "cpu"])


def as_bits(tensor: torch.Tensor) -> torch.Tensor:
    """A copy as integers, in logical order."""
    return tensor.detach().clone(memory_format=torch.contiguous_format).view(INTEGERS[tensor.element_size()])


def bits(optimizer: torch.optim.Optimizer, params: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies of parameters and state; zeros stand for a state that is not there yet, which is the same state."""
    held: dict[str, torch.Tensor] = {}
    for i, param in enumerate(params):
        held[f"param {i}"] = as_bits(param)
        for name, value in optimizer.state.get(param, {}).items():
            if bool(value.any()):
                held[f"{name} {i}"] = as_bits(value)
    return held


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Every tensor holds the same bits."""
    assert sorted(one) == sorted(other)
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []


class _Unread(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch annotates only part of itself

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket not in READERS, f"{func} hands a tensor's value to the host"
        return func(*args, **kwargs or {})


@contextmanager
def unread() -> Iterator[None]:
    """No tensor's value may reach Python inside: on a GPU the host would wait for it."""

    def refuse(*_: Any, **__: Any) -> None:
        msg = "a tensor's values were handed to the host"
        raise AssertionError(msg)

    with pytest.MonkeyPatch.context() as patch, _Unread():
        for name in ("tolist", "numpy", "cpu"):
            patch.setattr(torch.Tensor, name, refuse)
        yield


def skips(optimizer: Any) -> int:
    """Steps that the optimizer counted as skipped."""
    return int(optimizer.read_counters().skipped)
