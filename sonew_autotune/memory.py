"""Peak memory of a step, as it stands beside every speed."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sonew_autotune.measure import Work


def _tensors(value: object, seen: set[int]) -> Iterable[torch.Tensor]:
    """Every tensor reachable through containers, dataclasses and this project's own objects."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        yield value
        if value.grad is not None:
            yield value.grad
        return
    children: Iterable[Any] = ()
    if isinstance(value, Mapping):
        children = value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        children = value
    elif is_dataclass(value) and not isinstance(value, type):
        children = [getattr(value, field.name) for field in fields(value)]
    elif type(value).__module__.partition(".")[0].startswith("sonew") or isinstance(value, torch.optim.Optimizer):
        children = list(getattr(value, "__dict__", {}).values())
    for child in children:
        yield from _tensors(child, seen)


def held_bytes(*roots: object) -> int:
    """Bytes of the distinct storages that the objects hold: parameters, gradients, state and buffers."""
    storages = {}
    seen: set[int] = set()
    for root in roots:
        for tensor in _tensors(root, seen):
            storage = tensor.untyped_storage()
            storages[tensor.device, storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


class _Allocations(TorchDispatchMode):
    """Counts the bytes of tensors that operations make, until the last tensor on a storage goes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.held = 0
        self.peak = 0
        self._users: dict[int, int] = {}

    def _release(self, address: int, size: int) -> None:
        self._users[address] -= 1
        if self._users[address] == 0:
            del self._users[address]
            self.held -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401  # torch's protocol
        given = {tensor.untyped_storage().data_ptr() for tensor in _tensors([args, kwargs or {}], set())}
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors([result], set()):
            storage = tensor.untyped_storage()
            address, size = storage.data_ptr(), storage.nbytes()
            if address in given and address not in self._users:
                continue  # made before the call that is judged
            if address not in self._users:
                self._users[address] = 0
                self.held += size
                self.peak = max(self.peak, self.held)
            self._users[address] += 1
            weakref.finalize(tensor, self._release, address, size)
        return result


def _transient_cpu(work: Work) -> int:
    allocations = _Allocations()
    with allocations:
        work()
    return allocations.peak


def _transient_cuda(work: Work) -> int:
    torch.cuda.synchronize()
    before = int(torch.cuda.memory_allocated())
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return max(0, int(torch.cuda.max_memory_allocated()) - before)


def peak_bytes(work: Work, *roots: object, device: str = "cpu") -> int:
    """Peak memory of a step: what `roots` hold plus what one call allocates on top, in bytes.

    The second part is the device allocator's peak on CUDA, and on the CPU the tensors that torch operations make. Memory that
    compiled code takes outside torch is not seen.
    """
    return held_bytes(*roots) + (_transient_cuda if device == "cuda" else _transient_cpu)(work)
