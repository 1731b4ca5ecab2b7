"""What the torch surface must do: the same steps taken by `sonew.reference` on numpy arrays, tensor by tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sonew import reference
from sonew.config import Hyper
from tests.strategies import history
from tests.tolerances import assert_close

STORE_ROWS = {torch.bfloat16: "bfloat16 store", torch.float16: "float16 store"}


class Expected:
    """Tensors with settings of their own, stepped by the reference: params (any torch type), state in `dtype`."""

    def __init__(self, params: Sequence[torch.Tensor], *hypers: Hyper, dtype: Any = np.float32) -> None:
        self.hypers = hypers if len(hypers) == len(params) else hypers * len(params)
        self.types = [param.dtype for param in params]
        self.dtype = dtype
        self.params = [self._array(param) for param in params]
        self.momentum = [np.zeros_like(param) for param in self.params]
        self.stats = [np.zeros((h.band + 1, *p.shape), dtype) for h, p in zip(self.hypers, self.params, strict=True)]
        self.counts = [0] * len(params)

    def _array(self, tensor: torch.Tensor) -> np.ndarray:
        return np.array(tensor.detach().double().numpy(), dtype=self.dtype, order="C")

    def step(self, grads: Sequence[torch.Tensor | None]) -> None:
        """One step; None leaves a tensor alone. Parameters are rounded to their storage type."""
        with np.errstate(all="ignore"):
            for i, grad in enumerate(grads):
                if grad is None:
                    continue
                self.counts[i] += 1
                arrays = self.params[i], self._array(grad), self.momentum[i], self.stats[i], np.asarray(self.counts[i])
                param, self.momentum[i], self.stats[i] = reference.step(np, *arrays, self.hypers[i])
                self.params[i] = self._array(torch.from_numpy(np.asarray(param)).to(self.types[i]))

    def check(self, optimizer: torch.optim.Optimizer, params: Sequence[torch.Tensor]) -> None:
        """Parameters, momentum, stats and counts are the expected ones."""
        plain = "float64" if self.dtype == np.float64 else "float32"
        for i, param in enumerate(params):
            state = optimizer.state.get(param, {})
            assert_close(param, self.params[i], STORE_ROWS.get(param.dtype, plain), context=f"param {i}")
            if not self.counts[i]:
                assert not state, f"param {i} was never stepped and has state {sorted(state)}"
                continue
            averages = "float64" if self.dtype == np.float64 else "float32 averages"
            assert sorted(state) == ["count", "momentum", "stats"]
            assert state["count"].item() == self.counts[i], f"count of param {i}"
            assert_close(state["momentum"], self.momentum[i], averages, context=f"momentum {i}")
            assert_close(state["stats"], self.stats[i], averages, context=f"stats {i}")


def parameters(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> list[torch.nn.Parameter]:
    """Random parameters."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def gradients(params: Sequence[torch.Tensor], *, band: int, seed: int = 0) -> list[list[torch.Tensor]]:
    """A history of gradients in the parameters' types: [step][parameter]."""
    columns = [torch.from_numpy(history(seed + i, tuple(param.shape), band=band)).to(param.dtype) for i, param in enumerate(params)]
    return [list(row) for row in zip(*columns, strict=True)]


def take_step(optimizer: torch.optim.Optimizer, params: Sequence[torch.Tensor], grads: Sequence[torch.Tensor | None]) -> None:
    """Hand over gradients and step."""
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    optimizer.step()
