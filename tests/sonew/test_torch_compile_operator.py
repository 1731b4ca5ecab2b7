"""The operator that stands for a step in compiled graphs, alone: an optimizer of one line, sharded tensors, what graphs may not do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch._dynamo.utils import counters
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Placement, Replicate, Shard, distribute_tensor

from sonew.errors import CaptureError
from sonew.torch.compiled import register, trace_step
from sonew.torch.shards import is_dtensor, local_grad, local_of
from tests.tolerances import assert_close


class Descent:
    """Plain descent on the local parts of one group, for the operator alone."""

    def __init__(self, *params: torch.Tensor) -> None:
        self.param_groups: list[dict[str, Any]] = [{"params": list(params), "lr": 0.5}]
        self._handle = register(self)
        self.norms: list[torch.Tensor | None] = []

    def _take_step(self, total_norm: torch.Tensor | None, grad_scale: torch.Tensor | None, found_inf: torch.Tensor | None) -> None:
        assert grad_scale is found_inf is None
        self.norms.append(total_norm)
        for param in self.param_groups[0]["params"]:
            assert is_dtensor(param.grad) is is_dtensor(param)
            local_of(param).sub_(local_grad(param, param.grad), alpha=self.param_groups[0]["lr"])


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]  # torch exports it quietly
    yield DeviceMesh("cpu", [0])
    dist.destroy_process_group()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_sharded_tensors_step_in_place(mesh: DeviceMesh, backend: str) -> None:
    """The graph sees their local parts, also of a gradient that it made itself or that is placed in another way."""

    def whole(values: torch.Tensor, *placements: Placement) -> torch.Tensor:
        return distribute_tensor(values, mesh, placements)

    params = [torch.nn.Parameter(whole(torch.ones(4, 3), Shard(0))), torch.nn.Parameter(torch.ones(2))]
    optimizer = Descent(*params)

    def act() -> None:
        with torch.no_grad():
            params[0].mul_(3.0)
            params[0].grad.mul_(2.0)  # type: ignore[union-attr]  # it has one
            trace_step(optimizer, params[0].norm(), None, None)

    torch.compiler.reset()
    counters.clear()
    run = torch.compile(act, backend=backend, fullgraph=True)
    for _ in range(2):
        with torch.no_grad():
            params[0].fill_(1.0)
        params[0].grad, params[1].grad = whole(torch.full((4, 3), 0.25), Replicate()), torch.ones(2)
        run()
        assert_close(local_of(params[0].detach()), torch.full((4, 3), 2.75), "exact")
        assert_close(local_of(params[0].grad), torch.full((4, 3), 0.5), "exact")
        assert_close(optimizer.norms[-1], torch.full((4, 3), 3.0).norm(), "exact")
    assert_close(params[1], torch.zeros(2), "exact")
    assert counters["stats"]["unique_graphs"] == 1


def test_a_graph_that_outlives_its_optimizer_says_so() -> None:
    param = torch.ones(3)
    optimizer = Descent(param)
    handle = optimizer._handle
    rest: tuple[Any, ...] = ([0], [], [], None, None, None, handle)
    torch.ops.sonew.step([param], [torch.ones(3)], *rest)
    assert_close(param, torch.full((3,), 0.5), "exact")
    del optimizer
    with pytest.raises(CaptureError, match=rf"gone \(handle={handle}\): keep it"):
        torch.ops.sonew.step([param], [torch.ones(3)], *rest)


def test_the_compiler_makes_no_cuda_graph_of_it_unasked() -> None:
    register(Descent())
    assert torch.Tag.cudagraph_unsafe in torch.ops.sonew.step.default.tags
