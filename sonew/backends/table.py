"""A group of torch tensors as kernels see it: the address table, the tile maps and the buffers of one step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from sonew.backends.sums import TileSums
from sonew.backends.upload import Upload
from sonew.config import Hyper, Problem
from sonew.errors import CaptureError
from sonew.reference import decay_numbers, step_decay
from sonew_kernels.spec import Column, Slot, border_record, outer_gradients

MOVING: Final = (Column.ACTIVE, Column.PARAM, Column.GRAD, Column.MOMENTUM, Column.STATS, Column.COUNT)  # may change between steps
ALIGNMENT: Final = 32  # elements: every piece's direction starts on a 128-byte line


@dataclass(frozen=True, slots=True)
class Leaf:
    """One tensor of a group with its state (shapes in `sonew.layout`).

    Attributes:
        param: the parameter, any strides; of a sharded tensor the piece that lies here.
        momentum, stats: its contiguous state.
        count: int32 scalar.
        chain: elements per chain, at least 1.
        seed: of the tensor's stochastic rounding, an int32 (`sonew.rounding.tensor_seed`).
        start: position of the piece's first element in its tensor.
        total: elements of the whole tensor, None: this is the whole tensor.
    """

    param: torch.Tensor
    momentum: torch.Tensor
    stats: torch.Tensor
    count: torch.Tensor
    chain: int
    seed: int = 0
    start: int = 0
    total: int | None = None

    @property
    def whole(self) -> int:
        """Elements of the tensor that this is a piece of."""
        return self.param.numel() if self.total is None else self.total

    @property
    def is_piece(self) -> bool:
        """Whether other elements of the tensor lie elsewhere."""
        return self.whole != self.param.numel()


def gradient_sign(hyper: Hyper) -> float:
    """-1 where the objective is maximized, else 1."""
    return -1.0 if hyper.maximize else 1.0


def hyper_slots(hyper: Hyper) -> list[float]:
    """Values of the kernels' vector of per-step numbers, in `Slot` order."""
    numbers = decay_numbers(hyper)
    values = {
        Slot.LR: hyper.lr,
        Slot.WEIGHT_DECAY: step_decay(hyper),
        Slot.BETA1: hyper.beta1,
        Slot.ONE_MINUS_BETA1: numbers.one_minus_beta1,
        Slot.LOG_BETA1: numbers.log_beta1,
        Slot.BETA2: hyper.beta2,
        Slot.ONE_MINUS_BETA2: numbers.one_minus_beta2,
        Slot.LOG_BETA2: numbers.log_beta2,
        Slot.EPS: hyper.eps,
        Slot.EPS_REL: hyper.eps_rel,
        Slot.GAMMA: hyper.gamma,
        Slot.GAIN: gradient_sign(hyper),
        Slot.SKIP: 0.0,
    }
    return [values[slot] for slot in Slot]


def _tile_map(lengths: Sequence[int], tile: int) -> tuple[np.ndarray, np.ndarray]:
    """(tensor index of each tile, first tile of each tensor); an empty tensor keeps one tile, which counts its steps."""
    tiles = [max(1, -(-length // tile)) for length in lengths]
    first = np.concatenate(([0], np.cumsum(tiles)))
    return np.repeat(np.arange(len(lengths), dtype=np.int32), tiles), first[:-1].astype(np.int64)


def _strided(tensor: torch.Tensor) -> bool:
    """Whether the tensor's memory is not its elements in logical order; a negated view shares its base's address."""
    return not tensor.is_contiguous() or tensor.is_neg()


def _all_plain(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether all tensors' memory is their elements in logical order."""
    return all(map(torch.Tensor.is_contiguous, tensors)) and not any(map(torch.Tensor.is_neg, tensors))


def _addresses(tensors: Sequence[torch.Tensor]) -> list[int]:
    return list(map(torch.Tensor.data_ptr, tensors))


def direction_elements(lengths: Sequence[int]) -> int:
    """Elements of the direction buffer that a group of these lengths needs."""
    return sum(-(-length // ALIGNMENT) * ALIGNMENT for length in lengths)


@dataclass(frozen=True, slots=True)
class _CaptureRows:
    """The table of one capture. Every replay uploads `host` to `rows` again, so nobody writes it once the capture is over.

    Attributes:
        host: pinned where the device is a GPU. cells: the same memory, as numpy sees it.
        rows: on the device.
    """

    host: torch.Tensor
    cells: np.ndarray
    rows: torch.Tensor


class GroupTable:
    """The table of one launch group and its buffers, made once per plan; `bind` refreshes what moves between steps.

    A CUDA graph has a table of its own (`capture`), because gradients lie elsewhere in its memory than in eager steps, and shares
    the other buffers.

    Attributes (n tensors, t tiles, v update tiles):
        rows: int64 (n, len(Column)) on the group's device, as the next launches read it.
        tiles, update_tiles: int32 (t,), (v,), the tensor index of each tile.
        hyper: float32 (len(Slot),). lr: float32, one element, the step size that the update reads: a view of `hyper`, or the user's
            tensor. corrections: float32 (n, 2), 1 - beta1^count and 1 - beta2^count.
        edges: (t + n, band + 2, 2 band) in the state's type, the border records.
        outer: float32 (n, 2, band), the gradients beyond each piece's ends.
        direction: float32 or bfloat16, at least `direction_elements(lengths)`.
        partials: float64 (t, 2), sums of u^2 and a^2 per tile. fallen_tiles: float64 (t,), right behind, columns that fell back.
        scales: float32 (n,), the square root of |a| / |u|.
    """

    def __init__(
        self, leaves: Sequence[Leaf], problem: Problem, *, tile: int, update_tile: int, direction: torch.Tensor | None = None
    ) -> None:
        band, direction_dtype = problem.band, getattr(torch, problem.direction_dtype)
        self.leaves = tuple(leaves)
        self.device = leaves[0].param.device
        lengths = [leaf.param.numel() for leaf in leaves]
        tiles, first = _tile_map(lengths, tile)
        update_tiles, first_update = _tile_map(lengths, update_tile)
        padded = [direction_elements([length]) for length in lengths]

        self._host = torch.zeros((len(leaves), len(Column)), dtype=torch.int64, device="cpu")
        self._cells = self._host.numpy()
        for column, values in (
            (Column.LENGTH, lengths),
            (Column.START, [leaf.start for leaf in leaves]),
            (Column.TOTAL, [leaf.whole for leaf in leaves]),
            (Column.CHAIN, [leaf.chain for leaf in leaves]),
            (Column.SEED, [leaf.seed for leaf in leaves]),
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
        self.edges = torch.zeros((len(tiles) + len(leaves), *border_record(band)), dtype=leaves[0].stats.dtype, device=self.device)
        self.outer = torch.zeros((len(leaves), *outer_gradients(band)), dtype=torch.float32, device=self.device)
        needed = max(1, sum(padded))
        self.direction = torch.zeros(needed, dtype=direction_dtype, device=self.device) if direction is None else direction[:needed]
        norms = torch.zeros(3 * len(tiles), dtype=torch.float64, device=self.device)
        self.partials, self.fallen_tiles = norms[: 2 * len(tiles)].view(-1, 2), norms[2 * len(tiles) :]
        self.scales = torch.zeros(len(leaves), dtype=torch.float32, device=self.device)

        self._send_rows = None if on_host else Upload(self.rows)
        self._send_hyper = self.hyper.copy_ if on_host else Upload(self.hyper).send
        self._tiles = np.diff(np.append(first, len(tiles)))
        self._sum_tiles = TileSums(self._tiles.tolist(), self.device)
        self._hyper: Hyper | None = None
        self._signalled = False
        self._held_lr = self.lr = self.hyper[Slot.LR]
        self._bound: list[int] = [-1] * (len(MOVING) * len(leaves))
        self._params_here = [leaf.param for leaf in leaves]
        self._state_here = [getattr(leaf, name) for name in ("momentum", "stats", "count") for leaf in leaves]
        self._grads: dict[int, torch.Tensor] = {}
        self._params: dict[int, torch.Tensor] = {}
        self._spare: _CaptureRows | None = None
        self._captured: list[tuple[_CaptureRows, list[torch.Tensor]]] = []

    def set_hyper(self, hyper: Hyper, lr: torch.Tensor | None = None) -> None:
        """Bring the per-step numbers to the device, only when they changed.

        Args:
            hyper: the settings.
            lr: stands in for `hyper.lr`: float32, one element, on the group's device. Every step reads it where it lies.
        """
        self.lr = self._held_lr if lr is None else lr
        if hyper != self._hyper:
            self._send_hyper(torch.tensor(hyper_slots(hyper), dtype=torch.float32, device="cpu"))
            self._hyper = hyper

    def signal(self, grad_scale: torch.Tensor | None, skip: torch.Tensor | None) -> None:
        """What this step's kernels read beside the settings, in stream order and without a wait; after `set_hyper`.

        Args:
            grad_scale: one element, gradients are divided by it; None: 1.
            skip: one element, not 0: the step is skipped; None: it is not.
        """
        if not (self._signalled or grad_scale is not None or skip is not None) or self._hyper is None:
            return
        gain, skipped = self.hyper[Slot.GAIN], self.hyper[Slot.SKIP]
        sign = gradient_sign(self._hyper)
        gain.fill_(sign) if grad_scale is None else gain.copy_(sign / grad_scale.reshape(()).to(torch.float32))
        skipped.zero_() if skip is None else skipped.copy_(skip.reshape(()))
        self._signalled = grad_scale is not None or skip is not None

    def halo(self, i: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Where what lies beyond piece i's start (side 0) or end (side 1) goes: views that a neighbour's elements are copied to.

        Returns (old momentum and stats (band + 2, band), gradients (band,)).
        """
        band = self.outer.shape[-1]
        first = int(self._cells[i, Column.FIRST_TILE]) + i
        record = self.edges[first + (self._tiles[i] if side else 0)]
        return record[:, band * side : band * (side + 1)], self.outer[i, side]

    def sums(self) -> torch.Tensor:
        """Sums of u^2 and a^2 per tensor of the last direction phase, float64 (n, 2), in a fixed order."""
        return self._sum_tiles(self.partials)

    def counted(self) -> torch.Tensor:
        """Of the last step per tensor, float64 (n, 2): columns that fell back, 1; 0, 0 where it was skipped or had no gradient."""
        stepped = (self.rows[:, Column.ACTIVE] != 0) & (self.hyper[Slot.SKIP] == 0.0)
        fallen = torch.where(stepped, self._sum_tiles(self.fallen_tiles), 0.0)
        return torch.stack((fallen, stepped.to(fallen.dtype)), 1)

    def bind(self, grads: Sequence[torch.Tensor | None]) -> None:
        """Take this step's gradients: refresh moved addresses, stage strided tensors, flip the active flags."""
        places = self._places(grads)
        if places != self._bound:
            before, self._bound = self._bound, places
            self._fill(self._cells, places, before)
            if self._send_rows is not None:
                self._send_rows.send(self._host)

    @staticmethod
    def _fill(cells: np.ndarray, places: list[int], before: list[int] | None = None) -> None:
        """Write the columns `MOVING`, only those that changed where `before` is given."""
        n = len(cells)
        for column, start in zip(MOVING, range(0, len(places), n), strict=True):
            now = places[start : start + n]
            if before is None or now != before[start : start + n]:
                cells[:, column] = now

    def prepare_capture(self) -> None:
        """Allocate the table of the next capture, where there is none yet: while it runs nothing may be allocated or pinned."""
        self.signal(None, None)  # graphs read the same slots
        if self._spare is None:
            host = torch.empty_like(self._host, pin_memory=self.device.type == "cuda")
            self._spare = _CaptureRows(host, host.numpy(), torch.empty_like(self.rows))

    def capture_problem(self, hyper: Hyper, lr: torch.Tensor | None, grads: Sequence[torch.Tensor | None]) -> str | None:
        """Why a step with these settings and gradients cannot be captured now, with the fix, or None."""
        if hyper != self._hyper or self.lr is not (self._held_lr if lr is None else lr):
            return "settings changed that the device has not got yet: call push_settings() or take one eager step before the capture"
        if self._spare is None:
            return "no table is ready, as every capture keeps one: take one eager step with capturable=True before each capture"
        for i, (leaf, grad) in enumerate(zip(self.leaves, grads, strict=True)):
            staged = [] if grad is None else [(leaf.param, self._params), (grad, self._grads)]
            if any(_strided(tensor) and i not in copies for tensor, copies in staged):
                shape = tuple(leaf.param.shape)
                return f"a strided tensor of shape {shape} has no contiguous copy yet: take one eager step with these strides"
        return None

    @contextmanager
    def capture(self, grads: Sequence[torch.Tensor | None]) -> Iterator[None]:
        """Bind gradients to a table of their own for the launches inside, which a CUDA graph records; eager steps keep theirs.

        The graph uploads its table itself. What it reads stays allocated as long as this object.

        Raises:
            CaptureError: no table is ready.
        """
        spare, self._spare = self._spare, None
        if spare is None:
            msg = "prepare_capture() must be called before each capture"
            raise CaptureError(msg)
        spare.cells[:] = self._cells
        self._fill(spare.cells, self._places(grads))
        spare.rows.copy_(spare.host, non_blocking=True)
        read = (self.lr, *self._params.values(), *self._grads.values(), *(grad for grad in grads if grad is not None))
        self._captured.append((spare, list(read)))
        eager = self.rows, self._cells
        self.rows, self._cells = spare.rows, spare.cells
        try:
            yield
        finally:
            self.rows, self._cells = eager

    def _places(self, grads: Sequence[torch.Tensor | None]) -> list[int]:
        """The columns `MOVING`, one behind the other: where each tensor lies now, as storage can move under it; 0 without a gradient."""
        present = [grad for grad in grads if grad is not None]
        read = [*self._params_here, *present]
        if len(present) == len(grads) and _all_plain(read):  # most steps of most models
            self._params.clear()
            self._grads.clear()
            return [*([1] * len(grads)), *_addresses([*read, *self._state_here])]
        params = [0 if grad is None else self._stage(self._params, i, self._params_here[i]) for i, grad in enumerate(grads)]
        there = [0 if grad is None else self._stage(self._grads, i, grad) for i, grad in enumerate(grads)]
        return [*(int(grad is not None) for grad in grads), *params, *there, *_addresses(self._state_here)]

    @staticmethod
    def _stage(staged: dict[int, torch.Tensor], i: int, tensor: torch.Tensor) -> int:
        """Address of the tensor in logical order, through a contiguous copy kept for the next step where it is strided."""
        if not _strided(tensor):
            staged.pop(i, None)
            return tensor.data_ptr()
        if i not in staged:
            staged[i] = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
        staged[i].copy_(tensor)
        return staged[i].data_ptr()

    def sizes(self) -> tuple[int, int]:
        """Bytes of the tables and buffers without the direction, and of the contiguous copies of strided tensors."""
        buffers = (self.rows, self.tiles, self.update_tiles, self.hyper, self.corrections, self.edges, self.outer, self.scales)
        copies = (*self._params.values(), *self._grads.values())
        kept = [rows for rows, _ in self._captured] + ([self._spare] if self._spare else [])
        tables = sum(buffer.nbytes for buffer in buffers) + self.partials.nbytes + self.fallen_tiles.nbytes
        tables += sum(rows.rows.nbytes for rows in kept)
        return tables, sum(copy.nbytes for copy in copies)

    def unstage(self) -> None:
        """Write the parameters that were stepped in a contiguous copy back to their strided homes."""
        for i, staged in self._params.items():
            if self._cells[i, Column.ACTIVE]:
                self.leaves[i].param.copy_(staged)
