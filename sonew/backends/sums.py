"""Sums over the tiles of each tensor, and the scales that follow from them, for steps that reduce norms between processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch

CHUNK: Final = 256  # tiles that one thread sums: a large tensor's are summed in chunks first, which run side by side


class TileSums:
    """Sums per tensor of values per tile, in a fixed order and without a wait.

    Args:
        tiles: tiles of each tensor, at least 1.
        device: where the values lie.
    """

    def __init__(self, tiles: Sequence[int], device: torch.device) -> None:
        counts = np.asarray(tiles, dtype=np.int64)
        chunks = -(-counts // CHUNK)
        lengths = np.full(int(chunks.sum()), CHUNK, dtype=np.int64)
        lengths[np.cumsum(chunks) - 1] = counts - (chunks - 1) * CHUNK
        self._lengths, self._chunks = torch.from_numpy(lengths).to(device), torch.from_numpy(chunks).to(device)

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Values (t, ...) of all tiles, tensor by tensor, to sums (n, ...)."""
        partial = torch.segment_reduce(
            values, "sum", lengths=self._lengths, axis=0, unsafe=True
        )  # safe would look at the lengths: the host would wait
        return torch.segment_reduce(partial, "sum", lengths=self._chunks, axis=0, unsafe=True)


def graft_scales(sums: torch.Tensor, *, grafted: bool) -> torch.Tensor:
    """Scales (n,) float64 from sums of u^2 and a^2, float64 (n, 2), as `sonew_kernels.norms` forms them; 1 where not grafted."""
    own, wanted = sums.unbind(1)
    if not grafted:
        return torch.ones_like(own)
    scale = (wanted / torch.where(own == 0.0, 1.0, own)).sqrt().sqrt() + (own - own)  # NaN where |u| is not finite
    return torch.where(own == 0.0, 0.0, scale)
