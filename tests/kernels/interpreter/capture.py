"""A CUDA graph's stand-in where there is no GPU: a capture records launches and copies and runs none, a replay runs the record.

It refuses every other operation: during a capture nothing may be allocated and no value may be looked at. Where a step learns something on
the device, a capture may compute: new tensors are made, filled anew by every replay, and still no value may be looked at.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sonew.backends import triton_torch
from sonew.torch import SONew
from tests.expected import gradients, parameters, take_step
from tests.sonew.torch_bits import READERS

SHAPES = ((40, 7), (33,), (0,), (9, 5), (1,))
STRIDED = 3  # this parameter is transposed
SETTINGS: dict[str, Any] = {"backend": "triton", "tuning": "off", "eps": 1e-4, "betas": (0.9, 0.95)}


class Graph(TorchDispatchMode):
    """A record of launches and copies; `replay` runs it. One that `computes` records other operations too."""

    def __init__(self, *, computes: bool = False) -> None:
        super().__init__()
        self.computes = computes
        self.nodes: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "profiler":  # torch marks every optimizer's steps
            return func(*args, **kwargs or {})
        assert func is torch.ops.aten.copy_.default or (self.computes and func.overloadpacket not in READERS), f"{func} during a capture"
        if func._schema.is_mutable:
            self.nodes.append((func, args, kwargs or {}))
            return args[0]
        made = func(*args, **kwargs or {})
        self.nodes.append((partial(self._make_anew, func, made), args, kwargs or {}))
        return made

    @staticmethod
    def _make_anew(func: Any, made: Any, *args: Any, **kwargs: Any) -> None:
        """Compute again, into the memory of the capture."""
        for old, new in zip(tree_leaves(made), tree_leaves(func(*args, **kwargs)), strict=True):
            old.copy_(new)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs in self.nodes:
            func(*args, **kwargs)


class World:
    """The process as the optimizer sees it: kernels that a capture records, and torch saying whether there is one."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.graph: Graph | None = None
        self.deaf = False  # kernels do nothing
        table = triton_torch._kernels()
        wrapped = SimpleNamespace(**{name: self.kernel(kernel) for name, kernel in vars(table).items()})
        patch.setattr(triton_torch, "_kernels", lambda: wrapped)
        patch.setattr(torch.cuda, "is_initialized", lambda: True)
        patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: self.graph is not None)

    def kernel(self, real: Any) -> Any:
        """A kernel whose launches go to the graph while there is one."""

        def at(grid: tuple[int, ...]) -> Callable[..., None]:
            def launch(*args: Any, **kwargs: Any) -> None:
                if self.graph is not None:
                    self.graph.nodes.append((real[grid], args, kwargs))
                elif not self.deaf:
                    real[grid](*args, **kwargs)

            return launch

        return type("Kernel", (), {"__getitem__": lambda _self, grid: at(grid)})()

    @contextmanager
    def capture(self, *, computes: bool = False) -> Iterator[Graph]:
        """What the block launches is recorded and not run."""
        self.graph = graph = Graph(computes=computes)
        try:
            with graph:
                yield graph
        finally:
            self.graph = None


def model() -> list[torch.nn.Parameter]:
    """The same parameters every time, one of them strided."""
    params = parameters(*SHAPES)
    params[STRIDED].data = params[STRIDED].data.t().contiguous().t()
    return params


def rows_of(params: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Gradients [step][parameter], with the strides of their parameter where it is strided."""
    return [[grad.t().contiguous().t() if i == STRIDED else grad for i, grad in enumerate(row)] for row in gradients(params, band=2)]


def bits(optimizer: SONew, params: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Copies of parameters and state."""
    held = [tensor for param in params for tensor in (param, *optimizer.state[param].values()) if isinstance(tensor, torch.Tensor)]
    return [tensor.detach().clone() for tensor in held]


def assert_same(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> None:
    assert len(one) == len(other)
    assert [i for i, (a, b) in enumerate(zip(one, other, strict=True)) if not torch.equal(a, b)] == []


def without(row: Sequence[torch.Tensor], absent: Sequence[int]) -> list[torch.Tensor | None]:
    """Gradients, None for the absent."""
    return [None if i in absent else grad for i, grad in enumerate(row)]


class Pair:
    """An optimizer whose steps may be replayed, and its twin that takes the same steps eagerly, with plain numbers."""

    def __init__(self, world: World, lr: Any, **settings: Any) -> None:
        self.world = world
        self.params, self.twins = model(), model()
        self.ours = SONew(self.params, lr=lr, capturable=True, **SETTINGS | settings)
        self.eager = SONew(self.twins, lr=0.5, **SETTINGS | settings)
        self.homes = [torch.empty_like(param) for param in self.params]  # the graph's own memory for gradients
        self.stays = [torch.empty_like(param) for param in self.params]

    def step(self, row: Sequence[torch.Tensor], *absent: int, stay: bool = False) -> None:
        """Eagerly, ours with gradients that lie elsewhere, or where they lay in the last step that said so."""
        for home, grad in zip(self.stays, row, strict=True):
            home.copy_(grad)
        given = self.stays if stay else [grad.clone() for grad in row]
        take_step(self.ours, self.params, without(given, absent))
        self.follow(without(row, absent))

    def follow(self, row: Sequence[torch.Tensor | None]) -> None:
        """The twin steps, then every bit is compared."""
        take_step(self.eager, self.twins, row)
        assert_same(bits(self.ours, self.params), bits(self.eager, self.twins))

    def capture(self, *absent: int, computes: bool = False) -> Graph:
        """One step with gradients in the graph's memory, which changes nothing."""
        before = bits(self.ours, self.params)
        for i, (param, home) in enumerate(zip(self.params, self.homes, strict=True)):
            param.grad = None if i in absent else home
        with self.world.capture(computes=computes) as graph:
            self.ours.step()
        assert_same(bits(self.ours, self.params), before)
        return graph

    def replay(self, graph: Graph, row: Sequence[torch.Tensor], *absent: int) -> None:
        for home, grad in zip(self.homes, row, strict=True):
            home.copy_(grad)
        graph.replay()
        self.follow(without(row, absent))

    def set_lr(self, lr: float) -> None:
        """As a scheduler does; a number is pushed."""
        for optimizer in (self.ours, self.eager):
            group = optimizer.param_groups[0]
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def set_decay(self, decay: float) -> None:
        for optimizer in (self.ours, self.eager):
            optimizer.param_groups[0]["weight_decay"] = decay
        self.ours.push_settings()


def all_alive(graph: Graph) -> bool:
    """Whether everything that a graph reads is held by somebody else: the graph, which is emptied here, knows only addresses."""
    held = [weakref.ref(arg) for _, args, _ in graph.nodes for arg in args if isinstance(arg, torch.Tensor)]
    graph.nodes.clear()
    gc.collect()
    return all(ref() is not None for ref in held)
