"""Sums per tensor of values per tile, on either side of the chunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sonew.backends.sums import CHUNK, TileSums, graft_scales
from tests.tolerances import assert_close


@pytest.mark.parametrize("columns", [(), (2,)])
def test_sums_are_those_of_each_tensor(columns: tuple[int, ...]) -> None:
    """Neighbours of any size do not mix: each is close to its own sum, beside sums 1e30 times as large."""
    tiles = [1, CHUNK - 1, CHUNK, 3, CHUNK + 1, 5 * CHUNK, 5 * CHUNK + 7]
    values = torch.rand((sum(tiles), *columns), dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
    parts = values.split(tiles)
    for i in (1, 4):
        parts[i].mul_(1e30)
    found = TileSums(tiles, torch.device("cpu"))(values)
    assert found.shape == (len(tiles), *columns)
    for got, part in zip(found, parts, strict=True):
        assert_close(got, part.numpy().sum(0, dtype=np.longdouble).astype(np.float64), "float64")


@pytest.mark.parametrize(
    ("own", "wanted", "scale"), [(4.0, 64.0, 2.0), (0.0, 1.0, 0.0), (1e300, 1e300, 1.0), (float("inf"), 1.0, float("nan"))]
)
def test_scales(own: float, wanted: float, scale: float) -> None:
    """The square root of |a| / |u|: applied twice it brings u to the norm of a."""
    sums = torch.tensor([[own, wanted]], dtype=torch.float64)
    assert_close(graft_scales(sums, grafted=True), torch.tensor([scale]), "exact")
    assert graft_scales(sums, grafted=False).tolist() == [1.0]
