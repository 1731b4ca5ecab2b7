"""What the tests of this folder share: places, a mixed group of tensors with sentinels around them, bits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from sonew.torch import SONew
from sonew_kernels.spec import TRITON
from tests import expected
from tests.strategies import awkward_sizes
from tests.tolerances import as_float64

SETTINGS: Final[dict[str, Any]] = {"betas": (0.9, 0.95), "weight_decay": 0.1, "eps_rel": 1e-3}
RATES: Final = (0.5, 0.125, 0.0, 0.25, 0.03)  # another one every step
SENTINEL: Final = -777.0

Rows = list[list[torch.Tensor]]


class Place(NamedTuple):
    """Where a body runs."""

    device: str
    backend: str


class Data:
    """A mixed group on a device: sizes around the GPU's tiles, empty, one element, a scalar, strided; sentinels around each.

    Attributes:
        params: the same values for the same arguments.
        rows: gradients [step][tensor], a history that leaves well-conditioned windows, then one row per learning rate.
        rates: 0 through the history, then `RATES`.
    """

    def __init__(self, place: Place, *, band: int, dtype: torch.dtype = torch.float32) -> None:
        sizes = awkward_sizes(band, TRITON.tile(TRITON.default(band), band))
        values = expected.parameters(*((size,) for size in sizes), (), (65, 33), dtype=dtype)
        past, coming = expected.gradients(values, band=band), expected.gradients(values, band=band, seed=100)[: len(RATES)]
        self.rows: Rows = [[grad.to(place.device) for grad in row] for row in (*past, *coming)]
        self.rates = (*[0.0] * len(past), *RATES)
        self._storages = [torch.full((value.numel() + 2,), SENTINEL, dtype=dtype, device=place.device) for value in values]
        inner = [storage[1:-1].view(value.shape) for storage, value in zip(self._storages, values, strict=True)]
        for tensor, value in zip(inner, values, strict=True):
            tensor.copy_(value.detach())
        self.params = [torch.nn.Parameter(tensor) for tensor in (*inner[:-1], inner[-1].t())]
        for row in self.rows:
            row[-1] = row[-1].t()

    def intact(self) -> bool:
        """Whether nothing beside the parameters was written."""
        return all(bool((storage[[0, -1]] == SENTINEL).all()) for storage in self._storages)


def run(place: Place, data: Data, **settings: Any) -> SONew:
    """Every row of the data stepped by the surface."""
    optimizer = SONew(data.params, backend=place.backend, tuning="off", **SETTINGS | settings)
    for row, rate in zip(data.rows, data.rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        expected.take_step(optimizer, data.params, row)
    assert {plan.backend for plan in optimizer.plans()} == {place.backend}
    return optimizer


def joined(tensors: Iterable[torch.Tensor], rows: int = 1) -> np.ndarray:
    """float64 (rows, elements of all): a lone mean can be a difference of larger numbers, which leaves it fewer digits."""
    return np.concatenate([as_float64(tensor).reshape(rows, -1) for tensor in tensors], axis=1)


def bits(optimizer: SONew, params: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Parameters and state as bytes."""
    tensors = [tensor for param in params for tensor in (param.detach(), *optimizer.state[param].values())]
    return [tensor.reshape(-1).view(torch.uint8) for tensor in tensors]


def assert_same(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> None:
    assert [index for index, (a, b) in enumerate(zip(one, other, strict=True)) if not torch.equal(a, b)] == []
