"""What one rank does: the same steps as a single process, on its part of the tensors. Results are numpy arrays of whole tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard

from sonew.torch import SONew
from tests.expected import gradients, parameters

COLLECTIVES = ("all_to_all_single", "all_reduce", "broadcast", "all_gather_into_tensor", "reduce_scatter_tensor")


def placement(text: str) -> Placement:
    """A placement by name: "r" is Replicate(), "s0" Shard(0), "t0x2" _StridedShard(0, split_factor=2)."""
    if text == "r":
        return Replicate()
    dim, _, factor = text[1:].partition("x")
    return _StridedShard(int(dim), split_factor=int(factor)) if factor else Shard(int(dim))


def make_mesh(shape: Sequence[int]) -> DeviceMesh:
    """A CPU mesh of all ranks."""
    return init_device_mesh("cpu", tuple(shape), mesh_dim_names=tuple(f"dim{i}" for i in range(len(shape))))


def cut(tensor: torch.Tensor, mesh: DeviceMesh, placements: Sequence[str]) -> DTensor:
    """The tensor as a DTensor, made without a collective; strided shards as FSDP over tensor parallelism makes them."""
    wanted = [placement(text) for text in placements]
    if not any(isinstance(kind, _StridedShard) for kind in wanted):
        return distribute_tensor(tensor, mesh, wanted, src_data_rank=None)
    plain = distribute_tensor(tensor, mesh, [Replicate()] * mesh.ndim, src_data_rank=None)
    local = plain.to_local()
    for i in reversed(range(mesh.ndim)):  # the inner dimension first
        kind = wanted[i]
        if isinstance(kind, Shard | _StridedShard):
            parts = list(torch.chunk(local, mesh.shape[i], dim=kind.dim))
            empty = local.narrow(kind.dim, 0, 0)
            own = mesh.get_coordinate()[i]  # type: ignore[index]  # every rank is part of the mesh
            local = parts[own] if own < len(parts) else empty
    return DTensor.from_local(local.contiguous(), mesh, wanted, run_check=False, shape=tensor.shape, stride=tensor.stride())


def whole(tensor: torch.Tensor) -> np.ndarray:
    """A tensor in full, on every rank."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().float().numpy().copy()


def outcome(optimizer: torch.optim.Optimizer, params: Sequence[torch.Tensor]) -> list[dict[str, np.ndarray]]:
    """Parameters and state in full."""
    kept = []
    for param in params:
        state = optimizer.state[param]
        kept.append({"param": whole(param), **{name: whole(value) for name, value in sorted(state.items())}})
    return kept


def take_steps(
    optimizer: SONew, params: Sequence[torch.Tensor], rows: Sequence[Sequence[torch.Tensor]], mesh: DeviceMesh, placements: Any
) -> None:
    """Step with each row of whole gradients."""
    for row in rows:
        for param, grad, kinds in zip(params, row, placements, strict=True):
            param.grad = cut(grad.to(param.dtype), mesh, kinds)
        optimizer.step()


def sharded_steps(
    *,
    shapes: Sequence[tuple[int, ...]],
    placements: Sequence[Sequence[str]],
    mesh_shape: Sequence[int],
    steps: int,
    dtype: str = "float32",
    **settings: Any,
) -> tuple[list[dict[str, np.ndarray]], dict[str, int]]:
    """Some steps on sharded tensors: (parameters and state in full, collectives per step)."""
    mesh = make_mesh(mesh_shape)
    full = parameters(*shapes, dtype=getattr(torch, dtype))
    rows = gradients(full, band=settings["band"])[:steps]
    params = [torch.nn.Parameter(cut(param.detach(), mesh, kinds)) for param, kinds in zip(full, placements, strict=True)]
    optimizer = SONew(params, **settings)
    take_steps(optimizer, params, rows[:-1], mesh, placements)
    counts = dict.fromkeys(COLLECTIVES, 0)
    originals = {name: getattr(dist, name) for name in COLLECTIVES}
    for param, grad, kinds in zip(params, rows[-1], placements, strict=True):
        param.grad = cut(grad.to(param.dtype), mesh, kinds)

    def counted(name: str) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            counts[name] += 1
            return originals[name](*args, **more)

        return call

    for name in COLLECTIVES:
        setattr(dist, name, counted(name))
    plans = optimizer.plans()
    try:
        optimizer.step()
    finally:
        for name, original in originals.items():
            setattr(dist, name, original)
    kept = all(now is before for now, before in zip(optimizer.plans(), plans, strict=True))
    return outcome(optimizer, params), {**counts, "launch groups": len(plans), "new plans": int(not kept)}
