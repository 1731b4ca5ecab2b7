"""Joined tensors for the direct entries, as JAX has them: arrays one behind the other, a table of pairs of int32, no addresses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sonew.config import GraftName
from sonew_kernels.direction import direction_direct, direction_in_place
from sonew_kernels.norms import roots_direct
from sonew_kernels.prologue import prologue_direct
from sonew_kernels.spec import Column, Graft, Storage, border_record, outer_gradients, outer_state, triton_launches
from tests.kernels.interpreter.harness import MARGIN, SENTINEL, config, sentinels_intact

UNUSED = -(2**40) - 1  # what the direct entries must not read


@dataclass(frozen=True, kw_only=True)
class Part:
    """A tensor with its past, or a piece of one.

    Attributes:
        grad, momentum: (n,). stats: (band + 1, n).
        chain, seed, total: `spec.Column`; total 0: this is the whole tensor. number: which piece it is, all of n elements.
        outside: (2, band + 3, band), momentum, stats and gradient before its start and from its end on; None: NaN.
    """

    grad: torch.Tensor
    momentum: torch.Tensor
    stats: torch.Tensor
    chain: int
    seed: int = 0
    total: int = 0
    number: int = 0
    outside: torch.Tensor | None = None


def outside(fields: np.ndarray, start: int, end: int, band: int) -> torch.Tensor:
    """`Part.outside` of elements start..end-1 of a tensor with these fields (band + 3, total): momentum, stats, gradient; NaN beyond it."""
    padded = np.pad(fields, ((0, 0), (band, band)), constant_values=np.nan)
    return torch.from_numpy(np.stack((padded[:, start : start + band], padded[:, end + band : end + 2 * band])))


def joined_rows(lengths: Sequence[int], tile: int, **columns: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows int32 (tensors, columns, 2), tiles int32): the table of tensors one behind the other, and other columns by their names."""
    rows = np.full((len(lengths), len(Column)), UNUSED, dtype=np.int64)
    tiles = np.maximum(-(-np.array(lengths) // tile), 1)
    offset, first = (np.cumsum([0, *sizes])[:-1] for sizes in (lengths, tiles))
    known: dict[str, Any] = {"LENGTH": lengths, "OFFSET": offset, "FIRST_TILE": first, **columns}
    for name, values in known.items():
        rows[:, Column[name]] = values
    return (
        torch.from_numpy(rows.view(np.int32).reshape(len(lengths), len(Column), 2)),
        torch.from_numpy(np.repeat(np.arange(len(lengths), dtype=np.int32), tiles)),
    )


def _guarded(size: int, dtype: torch.dtype) -> torch.Tensor:
    """NaN between sentinels."""
    storage = torch.full((size + 2 * MARGIN,), SENTINEL, dtype=dtype)
    return storage[MARGIN : MARGIN + size].fill_(float("nan"))


def _joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    inner = _guarded(sum(tensor.numel() for tensor in tensors), tensors[0].dtype)
    return inner.copy_(torch.cat([tensor.reshape(-1) for tensor in tensors]))


class Joined:
    """Joined parts and the buffers of one step, which start as NaN; arrays that are not used have one element.

    `count` is the step's number, `slots` the kernels' numbers.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        slots: torch.Tensor,
        count: int,
        *,
        block: int = 128,
        graft: GraftName = "adam",
        pieces: bool = False,
        direction_dtype: torch.dtype = torch.float32,
    ) -> None:
        self.band = band = len(parts[0].stats) - 1
        self.lengths, self.slots, self.pieces = [part.grad.numel() for part in parts], slots, pieces
        self.count = torch.tensor(count, dtype=torch.int32)
        self.launches = triton_launches(config(block).as_dict(), band)
        totals = [part.total or part.grad.numel() for part in parts]
        chains, seeds = [part.chain for part in parts], [part.seed for part in parts]
        self.rows, self.tiles = joined_rows(self.lengths, block - band, TOTAL=totals, CHAIN=chains, SEED=seeds)
        self.numbers = torch.tensor([part.number for part in parts], dtype=torch.int32)
        self.grad, self.momentum, self.stats = (_joined([getattr(part, name) for part in parts]) for name in ("grad", "momentum", "stats"))
        state, n, tiles = self.momentum.dtype, len(parts), len(self.tiles)
        self.momentum_out, self.stats_out = (_guarded(tensor.numel(), state) for tensor in (self.momentum, self.stats))
        self.direction = _guarded(sum(self.lengths), direction_dtype)
        nan = float("nan")
        nothing = torch.full((2, band + 3, band), nan)
        beyond = torch.stack([nothing if part.outside is None else part.outside.float() for part in parts])
        self.outer_state = beyond[:, :, :-1].contiguous() if band else torch.full((1,), nan)
        self.outer_grads = beyond[:, :, -1].contiguous() if band else torch.full((1,), nan)
        assert not band or tuple(self.outer_state.shape[1:]) == outer_state(band)
        assert not band or tuple(self.outer_grads.shape[1:]) == outer_gradients(band)
        self.edges = torch.full((tiles + n, *border_record(band)) if band else (1,), nan, dtype=state)
        self.corrections, self.roots = torch.full((2,), nan), torch.full((n, 2), nan)
        self.partials = torch.full((tiles, 2), nan, dtype=torch.float64)
        stored = [int(Storage[str(kind).removeprefix("torch.").upper()]) for kind in (state, direction_dtype)]
        chained = any(chain < total for chain, total in zip(chains, totals, strict=True))
        self._facts = {
            "GRAFT": int(Graft[graft.upper()]),
            "CHAINED": chained,
            "PIECES": pieces,
            "STATE_STORAGE": stored[0],
            "DIRECTION_STORAGE": stored[1],
        }

    def prologue(self) -> None:
        launch, tiles = self.launches["prologue"], len(self.tiles)
        inputs = (self.momentum, self.stats, self.count, self.slots, self.rows, self.tiles, self.outer_state, tiles)
        prologue_direct[(-(-tiles // launch.unit),)](*inputs, self.corrections, self.edges, PIECES=self.pieces, **launch.constants)

    def direct(self, *, in_place: bool = False) -> None:
        """The direction phase."""
        beside = (self.rows, self.tiles, self.numbers, self.slots, self.corrections, self.edges, self.outer_grads, self.count)
        inputs = (self.grad, self.momentum, self.stats, *beside)
        outputs = (self.direction, self.partials)
        constants = {**self._facts, **self.launches["direction"].constants}
        if in_place:
            direction_in_place[(len(self.tiles),)](*inputs, *outputs, **constants)
            self.momentum_out, self.stats_out = self.momentum, self.stats
        else:
            direction_direct[(len(self.tiles),)](*inputs, self.momentum_out, self.stats_out, *outputs, **constants)

    def norms(self) -> None:
        roots_direct[(len(self.lengths),)](self.rows, self.partials, self.roots, **self.launches["norms"].constants)

    def run(self, *, in_place: bool = False) -> None:
        """All phases."""
        self.prologue()
        self.direct(in_place=in_place)
        self.norms()

    def outcome(self, i: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """New momentum, new stats and direction of part i."""
        start, length = sum(self.lengths[:i]), self.lengths[i]
        part, rows = slice(start, start + length), slice((self.band + 1) * start, (self.band + 1) * (start + length))
        return self.momentum_out[part], self.stats_out[rows].view(self.band + 1, length), self.direction[part]

    def intact(self) -> bool:
        """Whether no sentinel around any array was written."""
        arrays = (self.grad, self.momentum, self.stats, self.momentum_out, self.stats_out, self.direction)
        return all(sentinels_intact(tensor) for tensor in arrays)
