"""Groups of tensors for the interpreter: prepared state, outputs pre-filled with NaN, sentinels around every tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch

from sonew import reference
from sonew.backends.table import Leaf
from sonew.backends.triton_torch import StepGroup
from sonew.config import Hyper, LaunchConfig, Plan, Problem, chain_length
from sonew.rounding import tensor_seed
from tests.strategies import history

SENTINEL: Final = -777.0
MARGIN: Final = 19  # sentinels on either side; odd, so that no tensor of a test is aligned by chance


def guarded(values: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor of these values that lies between sentinels."""
    storage = torch.full((values.size + 2 * MARGIN,), SENTINEL, dtype=dtype)
    inner = storage[MARGIN : MARGIN + values.size].view(values.shape)
    inner.copy_(torch.from_numpy(np.ascontiguousarray(values)))
    return inner


def sentinels_intact(tensor: torch.Tensor) -> bool:
    """Whether nothing around a guarded tensor was written."""
    storage = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
    return bool((storage[:MARGIN] == SENTINEL).all() and (storage[storage.numel() - MARGIN :] == SENTINEL).all())


def config(block: int = 128, update_block: int = 256) -> LaunchConfig:
    """A configuration; the interpreter does not look at warps."""
    return LaunchConfig.of("triton", {"block": block, "num_warps": 1, "update_block": update_block, "update_num_warps": 1})


@dataclass
class Group:
    """Flat tensors of the given sizes with a past of their own, one step group over them, and the reference's view of it.

    `steps` past steps give each tensor its state (float64 averages, rounded to the state's type); `grads` are the coming step's.
    """

    sizes: Sequence[int]
    hyper: Hyper
    block: int = 128
    param_dtype: torch.dtype = torch.float32
    grad_dtype: torch.dtype = torch.float32
    state_dtype: torch.dtype = torch.float32
    direction_dtype: torch.dtype = torch.float32
    seed: int = 0
    steps: int | None = None
    leaves: list[Leaf] = field(init=False)
    grads: list[torch.Tensor] = field(init=False)
    stepper: StepGroup = field(init=False)

    def __post_init__(self) -> None:
        """Make state, gradients and the step group."""
        self.leaves, self.grads = [], []
        for i, size in enumerate(self.sizes):
            past = history(self.seed + i, (size,), band=self.hyper.band, steps=self.steps)
            grads = [guarded(g, self.grad_dtype) for g in past]
            links = reference.chain_links(np, past[0], self.hyper.band, chain_length(self.hyper.chain, (size,)))
            momentum, stats = np.zeros(size), np.zeros((self.hyper.band + 1, size))
            for grad in grads[:-1]:
                momentum, stats = reference.accumulate(np, momentum, stats, grad.double().numpy(), links, self.hyper)
            param = np.random.default_rng(self.seed + i).standard_normal(size)
            count = torch.tensor(len(past) - 1, dtype=torch.int32)
            chain = chain_length(self.hyper.chain, (size,))
            m, s = (guarded(values, self.state_dtype) for values in (momentum, stats))
            self.leaves.append(Leaf(guarded(param, self.param_dtype), m, s, count, chain, tensor_seed(self.seed, i)))
            self.grads.append(grads[-1])
        self.stepper = self.make_stepper()

    def make_stepper(self) -> StepGroup:
        """A step group with every buffer it is to fill set to NaN."""
        names = ("param_dtype", "grad_dtype", "state_dtype", "direction_dtype")
        types = {name: str(getattr(self, name)).removeprefix("torch.") for name in names}
        problem = Problem(device="cpu", band=self.hyper.band, total=sum(self.sizes), median=max(self.sizes), **types)  # type: ignore[arg-type]
        plan = Plan(problem=problem, backend="triton", config=config(self.block), provenance="test")
        stepper = StepGroup(self.leaves, plan)
        table = stepper.table
        for buffer in (table.corrections, table.edges, table.outer, table.direction, table.partials, table.scales):
            buffer.fill_(float("nan"))
        stepper.set_hyper(self.hyper)
        stepper.bind(self.grads)
        return stepper

    def direction(self, i: int) -> np.ndarray:
        """Tensor i's part of the direction buffer, float32."""
        padded = [-(-size // 32) * 32 for size in self.sizes]
        start = sum(padded[:i])
        return self.stepper.table.direction[start : start + self.sizes[i]].float().numpy().copy()

    def expected(self, i: int, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(direction, grafting target, momentum, stats) of tensor i after the step, by the reference on the present state."""
        leaf = self.leaves[i]
        grad, momentum, stats = (t.double().numpy().astype(dtype) for t in (self.grads[i], leaf.momentum, leaf.stats))
        links = reference.chain_links(np, grad, self.hyper.band, leaf.chain)
        return reference.direction(np, grad, momentum, stats, np.asarray(leaf.count.item() + 1), links, self.hyper)

    def run(self) -> None:
        """All four phases."""
        for phase in (self.stepper.prologue, self.stepper.direction, self.stepper.norms, self.stepper.update):
            phase()

    def intact(self) -> bool:
        """Whether no sentinel around any tensor was written."""
        leaves = [tensor for leaf in self.leaves for tensor in (leaf.param, leaf.momentum, leaf.stats)]
        return all(sentinels_intact(tensor) for tensor in (*leaves, *self.grads))
