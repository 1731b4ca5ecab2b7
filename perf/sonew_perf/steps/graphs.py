"""A step as a CUDA graph: recorded once, replayed without the host's work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from sonew_autotune.measure import Work

WARM_UP_STEPS: Final = 3


@dataclass(frozen=True, slots=True)
class Captured:
    """A recorded step.

    Attributes:
        work: replays it.
        pool_bytes: the private memory that the graph keeps for what the step allocates.
    """

    work: Work
    pool_bytes: int


def capture(step: Work) -> Captured:
    """Record a step after a few eager ones on a side stream, which compile what is to be compiled and allocate what stays.

    Raises:
        RuntimeError: the step does what a graph cannot hold, a wait for the device for example.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP_STEPS):
            step()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    torch.cuda.synchronize()
    return Captured(graph.replay, max(0, torch.cuda.memory_reserved() - before))
