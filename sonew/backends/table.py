"""A group of torch tensors as kernels see it: the address table, the tile maps and the buffers of one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from sonew.config import Hyper
from sonew.reference import decay_numbers
from sonew_kernels.spec import Column, Slot, border_record

ADDRESSES: Final = [Column.PARAM, Column.GRAD, Column.MOMENTUM, Column.STATS, Column.COUNT]
ALIGNMENT: Final = 32  # elements: every piece's direction starts on a 128-byte line


@dataclass(frozen=True, slots=True)
class Leaf:
    """One tensor of a group with its state (shapes in `sonew.layout`).

    Attributes:
        param: the parameter, any strides.
        momentum, stats: its contiguous state.
        count: int32 scalar.
        chain: elements per chain, at least 1.
    """

    param: torch.Tensor
    momentum: torch.Tensor
    stats: torch.Tensor
    count: torch.Tensor
    chain: int


def hyper_slots(hyper: Hyper) -> list[float]:
    """Values of the kernels' vector of per-step numbers, in `Slot` order."""
    numbers = decay_numbers(hyper)
    values = {
        Slot.LR: hyper.lr,
        Slot.WEIGHT_DECAY: hyper.weight_decay,
        Slot.BETA1: hyper.beta1,
        Slot.ONE_MINUS_BETA1: numbers.one_minus_beta1,
        Slot.LOG_BETA1: numbers.log_beta1,
        Slot.BETA2: hyper.beta2,
        Slot.ONE_MINUS_BETA2: numbers.one_minus_beta2,
        Slot.LOG_BETA2: numbers.log_beta2,
        Slot.EPS: hyper.eps,
        Slot.EPS_REL: hyper.eps_rel,
        Slot.GAMMA: hyper.gamma,
    }
    return [values[slot] for slot in Slot]


def _tile_map(lengths: Sequence[int], tile: int) -> tuple[np.ndarray, np.ndarray]:
    """(tensor index of each tile, first tile of each tensor); an empty tensor keeps one tile, which counts its steps."""
    tiles = [max(1, -(-length // tile)) for length in lengths]
    first = np.concatenate(([0], np.cumsum(tiles)))
    return np.repeat(np.arange(len(lengths), dtype=np.int32), tiles), first[:-1].astype(np.int64)


def direction_elements(lengths: Sequence[int]) -> int:
    """Elements of the direction buffer that a group of these lengths needs."""
    return sum(-(-length // ALIGNMENT) * ALIGNMENT for length in lengths)


class Upload:
    """Brings a small host array to its device tensor without waiting for the device.

    Each slot of pinned memory is written again only once its last copy is done, which by then it long is.

    Args:
        target: where the values go, on a GPU.
    """

    SLOTS: Final = 3

    def __init__(self, target: torch.Tensor) -> None:
        self._target = target
        self._slots = [self._slot(target) for _ in range(self.SLOTS)]
        self._sent = 0

    @staticmethod
    def _slot(target: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event]:
        return torch.empty(target.shape, dtype=target.dtype, pin_memory=True), torch.cuda.Event()

    def send(self, host: torch.Tensor) -> None:
        """Copy in stream order; `host` may change as soon as this returns."""
        buffer, done = self._slots[self._sent % self.SLOTS]
        self._sent += 1
        done.synchronize()
        buffer.copy_(host)
        self._target.copy_(buffer, non_blocking=True)
        done.record(torch.cuda.current_stream(self._target.device))


class GroupTable:
    """The table of one launch group and its buffers, made once per plan; `bind` refreshes what moves between steps.

    Attributes (n tensors, t tiles, v update tiles):
        rows: int64 (n, len(Column)) on the group's device.
        tiles, update_tiles: int32 (t,), (v,), the tensor index of each tile.
        hyper: float32 (len(Slot),). corrections: float32 (n, 2), 1 - beta1^count and 1 - beta2^count.
        edges: float32 (t + n, band + 3, 2 band), the border records.
        direction: float32, at least `direction_elements(lengths)`.
        partials: float64 (t, 2), sums of u^2 and a^2 per tile. scales: float32 (n,), the square root of |a| / |u|.
    """

    def __init__(self, leaves: Sequence[Leaf], *, band: int, tile: int, update_tile: int, direction: torch.Tensor | None = None) -> None:
        self.leaves = tuple(leaves)
        self.device = leaves[0].param.device
        lengths = [leaf.param.numel() for leaf in leaves]
        tiles, first = _tile_map(lengths, tile)
        update_tiles, first_update = _tile_map(lengths, update_tile)
        padded = [direction_elements([length]) for length in lengths]

        self._host = torch.zeros((len(leaves), len(Column)), dtype=torch.int64)
        self._cells = self._host.numpy()
        for column, values in (
            (Column.LENGTH, lengths),
            (Column.TOTAL, lengths),
            (Column.CHAIN, [leaf.chain for leaf in leaves]),
            (Column.OFFSET, np.concatenate(([0], np.cumsum(padded)))[:-1]),
            (Column.FIRST_TILE, first),
            (Column.FIRST_UPDATE_TILE, first_update),
        ):
            self._cells[:, column] = values

        on_host = self.device.type == "cpu"
        self.rows = self._host if on_host else torch.empty_like(self._host, device=self.device)
        self.tiles = torch.from_numpy(tiles).to(self.device)
        self.update_tiles = torch.from_numpy(update_tiles).to(self.device)
        self.hyper = torch.zeros(len(Slot), dtype=torch.float32, device=self.device)
        self.corrections = torch.zeros((len(leaves), 2), dtype=torch.float32, device=self.device)
        self.edges = torch.zeros((len(tiles) + len(leaves), *border_record(band)), dtype=torch.float32, device=self.device)
        needed = max(1, sum(padded))
        self.direction = torch.zeros(needed, dtype=torch.float32, device=self.device) if direction is None else direction[:needed]
        self.partials = torch.zeros((len(tiles), 2), dtype=torch.float64, device=self.device)
        self.scales = torch.zeros(len(leaves), dtype=torch.float32, device=self.device)

        self._send_rows = None if on_host else Upload(self.rows)
        self._send_hyper = self.hyper.copy_ if on_host else Upload(self.hyper).send
        self._hyper: Hyper | None = None
        self._bound: list[tuple[int, ...] | None] = [()] * len(leaves)
        self._grads: dict[int, torch.Tensor] = {}
        self._params: dict[int, torch.Tensor] = {}

    def set_hyper(self, hyper: Hyper) -> None:
        """Bring the per-step numbers to the device, only when they changed."""
        if hyper != self._hyper:
            self._send_hyper(torch.tensor(hyper_slots(hyper), dtype=torch.float32))
            self._hyper = hyper

    def bind(self, grads: Sequence[torch.Tensor | None]) -> None:
        """Take this step's gradients: refresh moved addresses, stage strided tensors, flip the active flags."""
        changed = False
        for i, (leaf, grad) in enumerate(zip(self.leaves, grads, strict=True)):
            addresses = None if grad is None else self._addresses(i, leaf, grad)
            if addresses != self._bound[i]:
                self._bound[i] = addresses
                self._cells[i, Column.ACTIVE] = addresses is not None
                if addresses is not None:
                    self._cells[i, ADDRESSES] = addresses
                changed = True
        if changed and self._send_rows is not None:
            self._send_rows.send(self._host)

    def _addresses(self, i: int, leaf: Leaf, grad: torch.Tensor) -> tuple[int, ...]:
        """Where the tensors lie now, in the order of `ADDRESSES`: storage can move under a tensor that stays the same."""
        param = self._stage(self._params, i, leaf.param)
        return param, self._stage(self._grads, i, grad), leaf.momentum.data_ptr(), leaf.stats.data_ptr(), leaf.count.data_ptr()

    @staticmethod
    def _stage(staged: dict[int, torch.Tensor], i: int, tensor: torch.Tensor) -> int:
        """Address of the tensor in logical order, through a contiguous copy kept for the next step where it is strided."""
        if tensor.is_contiguous() and not tensor.is_neg():  # a negated view shares its base's address
            staged.pop(i, None)
            return tensor.data_ptr()
        if i not in staged:
            staged[i] = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
        staged[i].copy_(tensor)
        return staged[i].data_ptr()

    def unstage(self) -> None:
        """Write the parameters that were stepped in a contiguous copy back to their strided homes."""
        for i, staged in self._params.items():
            if self._cells[i, Column.ACTIVE]:
                self.leaves[i].param.copy_(staged)
