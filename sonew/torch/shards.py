"""Sharded tensors (DTensor): which piece lies here, and what its neighbours must be told. The arithmetic: `sonew.sharding`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import torch
import torch.distributed as dist

from sonew.backends.table import Leaf
from sonew.config import Chain
from sonew.dispatch import StepGroup
from sonew.errors import UnsupportedProblemError
from sonew.layout import BufferSpec
from sonew.sharding import Piece, Split, halo_exchange, is_contiguous_everywhere, place

Mesh = Any  # torch.distributed.device_mesh.DeviceMesh, which is not loaded for plain tensors
DTENSOR_MODULE: Final = "torch.distributed.tensor"


def is_dtensor(tensor: torch.Tensor) -> bool:
    """Whether the tensor is a DTensor; while its module is not loaded there is none."""
    module = sys.modules.get(DTENSOR_MODULE)
    return module is not None and isinstance(tensor, module.DTensor)


def local_of(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a DTensor that lies here, always the same tensor; any other tensor itself. Within `torch.no_grad`."""
    if not is_dtensor(tensor):
        return tensor
    if torch.compiler.is_compiling():
        traced: torch.Tensor = tensor.to_local()  # type: ignore[attr-defined]  # a DTensor
        return traced
    local: torch.Tensor = tensor._local_tensor  # type: ignore[attr-defined]  # noqa: SLF001  # `to_local` of a Parameter is a new view each time
    return local.wait() if hasattr(local, "wait") else local  # of a collective that may be under way


def local_grad(param: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """The local part of a gradient, laid out as its parameter is."""
    if is_dtensor(grad) and grad.placements != param.placements:  # type: ignore[attr-defined]  # DTensors
        grad = grad.redistribute(param.device_mesh, param.placements)  # type: ignore[attr-defined]  # DTensors
    return local_of(grad)


def check_not_flat(param: torch.Tensor) -> None:
    """Refuse parameters of FSDP1, with UnsupportedProblemError."""
    if getattr(param, "_is_flat_param", False) or getattr(param, "_fsdp_flattened", False):
        msg = (
            "SONew does not support the flat parameters of FullyShardedDataParallel (FSDP1): they hide where a tensor begins and ends. "
            "Use torch.distributed.fsdp.fully_shard (FSDP2), whose parameters are DTensors."
        )
        raise UnsupportedProblemError(msg)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a parameter is cut.

    Attributes:
        piece: what lies here, as kernels see it.
        shape, splits, chain, band: what it follows from (`sonew.sharding.place`).
        mesh: the parameter's device mesh, None for a plain tensor. cut: mesh dimensions that cut it, none where it is replicated.
    """

    piece: Piece
    shape: tuple[int, ...]
    splits: tuple[Split, ...]
    chain: Chain
    band: int
    mesh: Mesh
    cut: tuple[int, ...]

    @property
    def home(self) -> tuple[Mesh, tuple[int, ...]] | None:
        """What the processes that hold its pieces have in common, None where no other process holds one."""
        return (self.mesh, self.cut) if self.cut else None

    def piece_at(self, coordinate: Sequence[int]) -> Piece:
        """The piece of the process at another place of the mesh."""
        return place(self.shape, self.splits, coordinate, self.chain, self.band)


def splits_of(param: torch.Tensor) -> tuple[Split, ...]:
    """How each mesh dimension cuts a DTensor.

    Raises:
        UnsupportedProblemError: a placement that is not a shard of a tensor dimension or a replica.
    """
    splits = []
    mesh, placements = param.device_mesh, param.placements  # type: ignore[attr-defined]  # a DTensor
    for size, placement in zip(mesh.shape, placements, strict=True):
        kind = type(placement).__name__
        if kind == "Replicate":
            splits.append(Split(None, size))
        elif kind in ("Shard", "_StridedShard"):
            splits.append(Split(placement.dim % param.ndim, size, getattr(placement, "split_factor", 1)))
        else:
            msg = f"SONew does not support a parameter placed as {placements}: use Shard and Replicate; redistribute the parameter."
            raise UnsupportedProblemError(msg)
    return tuple(splits)


def layout_of(param: torch.Tensor, chain: Chain, band: int, *, stochastic: bool) -> Layout:
    """A parameter's layout.

    Args:
        param: a tensor or DTensor.
        chain, band: the group's settings.
        stochastic: whether something of it is rounded by noise, which follows positions in the whole tensor.

    Raises:
        UnsupportedProblemError: cut in a way that chains of this kind cannot cross exactly.
    """
    shape = tuple(param.shape)
    if not is_dtensor(param):
        return Layout(place(shape, (), (), chain, band), shape, (), chain, band, None, ())
    splits, mesh = splits_of(param), param.device_mesh  # type: ignore[attr-defined]  # a DTensor
    coordinate = mesh.get_coordinate()
    if coordinate is None:
        msg = f"this process (rank {dist.get_rank()}) is not part of {mesh}, which holds a parameter of shape {shape}."
        raise UnsupportedProblemError(msg)
    if stochastic and not is_contiguous_everywhere(shape, splits):
        msg = (
            f"stochastic rounding needs parts that are one run of the tensor's elements; a parameter of shape {shape} is placed as "
            f"{param.placements}. Use Shard(0), or float32 state and stochastic_rounding=False."  # type: ignore[attr-defined]  # a DTensor
        )
        raise UnsupportedProblemError(msg)
    cut = tuple(i for i, split in enumerate(splits) if split.dim is not None and split.parts > 1)
    return Layout(place(shape, splits, coordinate, chain, band), shape, splits, chain, band, mesh, cut)


def zeros_state(param: torch.Tensor, spec: BufferSpec) -> torch.Tensor:
    """A state buffer of `sonew.layout`: as a DTensor cut like its parameter behind the leading dimensions that it has more."""
    dtype = getattr(torch, spec.dtype)
    if not is_dtensor(param):
        return torch.zeros(spec.shape, dtype=dtype, device=param.device)
    tensor = sys.modules[DTENSOR_MODULE]
    local, more = local_of(param), len(spec.shape) - param.ndim
    zeros = torch.zeros((*spec.shape[:more], *local.shape), dtype=dtype, device=local.device)
    placements = [_shifted(placement, more, param.ndim) for placement in param.placements]  # type: ignore[attr-defined]  # a DTensor
    shape = torch.Size(spec.shape)
    meta = tensor._dtensor_spec.TensorMeta(shape, torch.empty(shape, device="meta").stride(), dtype)  # noqa: SLF001  # no public way
    cut = tensor._dtensor_spec.DTensorSpec(param.device_mesh, tuple(placements), tensor_meta=meta)  # type: ignore[attr-defined]  # noqa: SLF001
    state: torch.Tensor = tensor.DTensor(zeros, cut, requires_grad=False)  # `from_local` would move offloaded state to the mesh's devices
    return state


def is_cut_like(state: torch.Tensor, param: torch.Tensor) -> bool:
    """Whether a state buffer is cut as `zeros_state` would cut it, on the same mesh."""
    if not (is_dtensor(param) and state.ndim >= param.ndim and is_dtensor(state)):
        return not is_dtensor(state)
    wanted = tuple(_shifted(placement, state.ndim - param.ndim, param.ndim) for placement in param.placements)  # type: ignore[attr-defined]  # DTensors
    return state.device_mesh == param.device_mesh and tuple(state.placements) == wanted  # type: ignore[attr-defined]  # DTensors


def _shifted(placement: Any, more: int, ndim: int) -> Any:  # noqa: ANN401  # torch's placements, which are not loaded for plain tensors
    match type(placement).__name__:
        case "Shard":
            return type(placement)(placement.dim % ndim + more)
        case "_StridedShard":
            return type(placement)(placement.dim % ndim + more, split_factor=placement.split_factor)
        case _:
            return placement


def process_group(mesh: Mesh, dims: tuple[int, ...]) -> dist.ProcessGroup:
    """The processes along these dimensions of the mesh that share this one's place on the others."""
    if len(dims) == 1:
        group: dist.ProcessGroup = mesh.get_group(dims[0])
        return group
    return _group_of(tuple(sorted(rank for _, rank in _members(mesh, dims))))


_made: Final[dict[tuple[int, ...], tuple[Any, dist.ProcessGroup]]] = {}


def _group_of(ranks: tuple[int, ...]) -> dist.ProcessGroup:
    """A group of its own, made once in the life of the default group."""
    world = dist.group.WORLD
    if ranks not in _made or _made[ranks][0] is not world:
        _made[ranks] = world, dist.new_group(list(ranks), use_local_synchronization=True)
    return _made[ranks][1]


def _members(mesh: Mesh, dims: Sequence[int]) -> list[tuple[tuple[int, ...], int]]:
    """(coordinate, global rank) of the processes along these dimensions through this one's place."""
    own = mesh.get_coordinate()
    view = mesh.mesh[tuple(slice(None) if i in dims else own[i] for i in range(mesh.mesh.ndim))]
    members = []
    for position in product(*(range(mesh.shape[i]) for i in dims)):
        coordinate = list(own)
        for i, at in zip(dims, position, strict=True):
            coordinate[i] = at
        members.append((tuple(coordinate), int(view[tuple(position)])))
    return members


class Neighbours:
    """What the pieces of one launch group exchange in every step: halos before the direction phase, norms after it.

    Args:
        layouts: of the group's tensors, all with the same home.
        leaves: their local pieces with state.
        stepper: its halos are filled.
    """

    def __init__(self, layouts: Sequence[Layout], leaves: Sequence[Leaf], stepper: StepGroup) -> None:
        mesh, cut, band = layouts[0].mesh, layouts[0].cut, layouts[0].band
        self.group = process_group(mesh, cut)
        members = sorted((dist.get_group_rank(self.group, rank), coordinate) for coordinate, rank in _members(mesh, cut))
        pieces = [[layout.piece_at(coordinate) for layout in layouts] for _, coordinate in members]
        me = dist.get_rank(self.group)
        exchange = halo_exchange(pieces, band, me)
        self._crossed = any(_crosses(piece, band) for row in pieces for piece in row)
        dtype = torch.promote_types(leaves[0].momentum.dtype, torch.float32)
        device, rows, ranks = leaves[0].param.device, band + 3, len(members)
        self._sizes: list[list[int]] = [
            [rows * sum(t.count for t in side if t.peer == peer) for peer in range(ranks)] for side in (exchange.sends, exchange.receives)
        ]
        self._sent, self._received = (torch.zeros(sum(sizes), dtype=dtype, device=device) for sizes in self._sizes)
        outgoing = self._blocks(self._sent, [t.count for t in exchange.sends], rows)
        incoming = self._blocks(self._received, [t.count for t in exchange.receives], rows)
        self._state_to, self._grads_to = [], []
        self._sent_state = [(leaves[t.tensor], slice(t.local, t.local + t.count)) for t in exchange.sends]
        self._state_from, self._state_at = self._state_views(), self._addresses()
        for block, t in zip(outgoing, exchange.sends, strict=True):
            own = slice(t.local, t.local + t.count)
            self._state_to += [block[0], block[1:-1]]
            self._grads_to.append((block[-1], t.tensor, own))
        self._halos_to, self._halos_from = [], []
        for block, t in zip(incoming, exchange.receives, strict=True):
            state, grads = stepper.halo(t.tensor, t.side)
            self._halos_to += [state[:, t.offset : t.offset + t.count], grads[t.offset : t.offset + t.count]]
            self._halos_from += [block[:-1], block[-1]]

    def _state_views(self) -> list[torch.Tensor]:
        pairs = [(leaf.momentum.view(-1)[own], leaf.stats.view(len(leaf.stats), -1)[:, own]) for leaf, own in self._sent_state]
        return [view for pair in pairs for view in pair]

    def _addresses(self) -> list[int]:
        return [tensor.data_ptr() for leaf, _ in self._sent_state for tensor in (leaf.momentum, leaf.stats)]

    @staticmethod
    def _blocks(buffer: torch.Tensor, counts: Sequence[int], rows: int) -> list[torch.Tensor]:
        """The buffer's consecutive blocks (rows, count)."""
        return [block.view(rows, -1) for block in buffer.split([rows * count for count in counts])] if counts else []

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        return self._sent.nbytes + self._received.nbytes

    def exchange(self, grads: Sequence[torch.Tensor | None]) -> None:
        """Fill the stepper's halos with the old state and the gradients of this step that lie elsewhere: one collective."""
        if not self._crossed:
            return
        if (now := self._addresses()) != self._state_at:  # storage can move under the same tensor
            self._state_from, self._state_at = self._state_views(), now
        there = [(to, grads[tensor], own) for to, tensor, own in self._grads_to]
        present = [(to, grad.reshape(-1)[own]) for to, grad, own in there if grad is not None]
        targets, sources = [*self._state_to, *(to for to, _ in present)], [*self._state_from, *(source for _, source in present)]
        if targets:
            torch._foreach_copy_(targets, sources)
        dist.all_to_all_single(self._received, self._sent, self._sizes[1], self._sizes[0], group=self.group)
        if self._halos_to:
            torch._foreach_copy_(self._halos_to, self._halos_from)

    def reduce(self, sums: torch.Tensor) -> torch.Tensor:
        """Sums (n, 2) over all pieces of each tensor."""
        dist.all_reduce(sums, group=self.group)
        return sums


def _crosses(piece: Piece, band: int) -> bool:
    """Whether a chain of the piece goes on in another one."""
    end = piece.start + piece.length
    left = piece.start > 0 and piece.start % piece.chain != 0
    return band > 0 and piece.length > 0 and (left or (end < piece.total and end % piece.chain != 0))
