"""Groups for the compiled CPU backend: prepared state, buffers pre-filled with NaN, sentinels around every tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch

from sonew import reference
from sonew.backends import reference_torch
from sonew.backends.cpu_torch import StepGroup
from sonew.backends.table import Leaf, direction_elements
from sonew.config import Hyper, LaunchConfig, Plan, Problem, chain_length
from sonew.rounding import tensor_seed
from tests.strategies import history

SENTINEL: Final = -777.0
MARGIN: Final = 19  # sentinels on either side; odd, so that no tensor of a test is aligned by chance
SMALL: Final = {"segment": 4096, "block": 256, "threads": 0}


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


def past_state(grads: np.ndarray, hyper: Hyper) -> tuple[np.ndarray, np.ndarray]:
    """(momentum, stats) of flat gradients (steps, n): plain means scaled like running ones, so that no step needs a loop."""
    steps, size = grads.shape
    links = reference.chain_links(np, grads[0], hyper.band, chain_length(hyper.chain, (size,)))
    products = [(grads * np.pad(grads, ((0, 0), (0, k)))[:, k:]).mean(0) * link for k, link in enumerate(links)]
    return grads.mean(0) * (1 - hyper.beta1**steps), np.stack(products) * (1 - hyper.beta2**steps)


def run_step(stepper: StepGroup | reference_torch.StepGroup, grads: Sequence[torch.Tensor | None]) -> None:
    """Bind and all four phases."""
    stepper.bind(grads)
    for phase in (stepper.prologue, stepper.direction, stepper.norms, stepper.update):
        phase()


@dataclass
class Group:
    """Flat tensors of the given sizes with a past of their own, one step group over them, and the reference's view of it.

    `grads` are the coming step's. `config` changes SMALL. `dtype` is that of parameters and gradients, `state` that of the
    state, `scratch` that of the direction.
    """

    sizes: Sequence[int]
    hyper: Hyper
    config: dict[str, int] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    state: torch.dtype = torch.float32
    scratch: torch.dtype = torch.float32
    seed: int = 0
    leaves: list[Leaf] = field(init=False)
    grads: list[torch.Tensor | None] = field(init=False)
    stepper: StepGroup = field(init=False)

    def __post_init__(self) -> None:
        """Make state, gradients and the step group."""
        self.leaves, self.grads = [], []
        for i, size in enumerate(self.sizes):
            grads = history(self.seed + i, (size,), band=self.hyper.band)
            momentum, stats = past_state(grads[:-1].astype(np.float64), self.hyper)
            param = np.random.default_rng(self.seed + i).standard_normal(size)
            count = torch.tensor(len(grads) - 1, dtype=torch.int32)
            chain = chain_length(self.hyper.chain, (size,))
            state = guarded(momentum, self.state), guarded(stats, self.state)
            self.leaves.append(Leaf(guarded(param, self.dtype), *state, count, chain, tensor_seed(self.seed, i)))
            self.grads.append(guarded(grads[-1], self.dtype))
        self.stepper = self.make_stepper()

    def make_stepper(self) -> StepGroup:
        """A step group with every buffer it is to fill set to NaN."""
        stepper = StepGroup(self.leaves, self.plan())
        table = stepper.table
        for buffer in (table.corrections, table.edges, table.outer, table.direction, table.partials, table.scales):
            buffer.fill_(float("nan"))
        stepper.set_hyper(self.hyper)
        return stepper

    def plan(self) -> Plan:
        """Of the group's own configuration."""
        dtypes = {"param": self.dtype, "grad": self.dtype, "state": self.state, "direction": self.scratch}
        names: dict[str, Any] = {f"{role}_dtype": str(dtype).removeprefix("torch.") for role, dtype in dtypes.items()}
        problem = Problem(device="cpu", band=self.hyper.band, total=sum(self.sizes), median=max(self.sizes), **names)
        return Plan(problem=problem, backend="cpu", config=LaunchConfig.of("cpu", SMALL | self.config), provenance="test")

    def direction(self, i: int) -> torch.Tensor:
        """Tensor i's part of the direction buffer."""
        start = direction_elements(self.sizes[:i])
        return self.stepper.table.direction[start : start + self.sizes[i]].clone()

    def expected(self, i: int, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(direction, grafting target, momentum, stats) of tensor i after the step, by the reference on the present state."""
        leaf, grad = self.leaves[i], self.grads[i]
        assert grad is not None
        g, momentum, stats = (t.double().numpy().astype(dtype) for t in (grad, leaf.momentum, leaf.stats))
        links = reference.chain_links(np, g, self.hyper.band, leaf.chain)
        with np.errstate(all="ignore"):
            return reference.direction(np, g, momentum, stats, np.asarray(leaf.count.item() + 1), links, self.hyper)

    def run(self) -> None:
        """Bind and all four phases."""
        run_step(self.stepper, self.grads)

    def intact(self) -> bool:
        """Whether no sentinel around any tensor was written."""
        tensors = [t for leaf in self.leaves for t in (leaf.param, leaf.momentum, leaf.stats)]
        return all(sentinels_intact(t) for t in (*tensors, *(g for g in self.grads if g is not None)))
