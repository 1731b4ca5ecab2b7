"""Tensors of more elements than 32 bits count, of which only the tail is in memory, and the comparison of a step of that tail.

Their elements lie in private mappings, whose pages exist only once they are touched.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from sonew import rounding
from sonew.backends.table import GroupTable, Leaf
from sonew.config import Hyper
from tests.tolerances import assert_close

BF16: Final = torch.bfloat16
BEYOND: Final = 5000  # elements past a power of two
MAP_NORESERVE: Final = 0x4000  # Linux; Python has no name for it


def sparse(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Zeros that take no memory until they are written."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


def noise(seed: np.ndarray, count: np.ndarray, row: int, element: np.ndarray) -> np.ndarray:
    """`rounding.noise` for positions of 64 bits, whose high word times STRIDE joins the second key."""
    low, high = element.astype(np.uint32).view(np.int32), (element >> 32).astype(np.int32)
    first = rounding.mix(seed ^ rounding.mix(count * rounding.STRIDE + row // 2))
    second = rounding.mix(first + rounding.STRIDE) + high * rounding.STRIDE
    x = low ^ first
    x = (x ^ rounding._shift(x, 16)) * rounding.MULTIPLIERS[0] + second
    x = (x ^ rounding._shift(x, 15)) * rounding.MULTIPLIERS[1]
    x ^= rounding._shift(x, 15)
    bits: np.ndarray = rounding._shift(x, 16) if row % 2 else x & 0xFFFF
    return bits


def tail_start(length: int, chain: int, least: int) -> int:
    """Where a chain begins that leaves at least `least` elements to the end."""
    return (length - least) // chain * chain


@dataclass(frozen=True)
class Huge:
    """A tensor of `length` elements with the state, gradient and direction of `tail` at its end, zeros before; NaN in the direction.

    Attributes:
        length: elements.
        hyper: the settings.
        tail: a group of one tensor, the huge one's last elements, for the reference (`Group` of either folder's harness).
        leaf, grad, direction: the huge tensors.
    """

    length: int
    hyper: Hyper
    tail: Any
    leaf: Leaf
    grad: torch.Tensor
    direction: torch.Tensor

    @classmethod
    def of(cls, length: int, tail: Any) -> Huge:
        """The huge tensor that ends like the tail."""
        source, grad = tail.leaves[0], tail.grads[0]
        start = length - source.param.numel()
        homes = []
        for values in (source.param, source.momentum, source.stats, grad, tail.stepper.table.direction[: grad.numel()]):
            home = sparse((*values.shape[:-1], length), values.dtype)
            home[..., start:] = values
            homes.append(home)
        param, momentum, stats, grad, direction = homes
        chain = source.chain if source.chain < source.param.numel() else length
        return cls(length, tail.hyper, tail, Leaf(param, momentum, stats, source.count.clone(), chain, source.seed), grad, direction)

    @property
    def start(self) -> int:
        """Where the tail begins."""
        return self.length - int(self.tail.grads[0].numel())

    def stored(self, values: np.ndarray, row: int, kind: torch.dtype) -> Any:
        """float64 values of the last elements, as row `row` of the state, or as the parameter, is to be stored in this type."""
        exact = values.astype(np.float32)
        if kind is not BF16:
            return exact
        seed, count = (np.array([number], dtype=np.int32) for number in (self.leaf.seed, int(self.leaf.count)))
        bits = noise(seed, count, row, np.arange(self.length - values.size, self.length))
        return rounding.round_to_bfloat16(np, exact, bits)

    def check(self, table: GroupTable, run: Callable[[], None], *, first: int, stepped: int) -> None:
        """Run the step of the last tiles and compare every phase with the float64 reference of the tail.

        Args:
            table: the step group's; its buffers are zero where no tile runs.
            run: all phases.
            first: the first element that the direction phase steps, `stepped` that of the update, at or after it.
        """
        leaf, start = self.leaf, self.start
        rows = (leaf.momentum, *leaf.stats)
        old = [row[start:].clone() for row in (leaf.param, *rows)]
        assert torch.isnan(table.direction[start:]).all()
        u, target, momentum, stats = self.tail.expected(0)
        run()

        assert leaf.count == self.tail.leaves[0].count + 1
        narrow = leaf.momentum.dtype is BF16
        for row, (got, want) in enumerate(zip(rows, (momentum, *stats), strict=True)):
            expected = self.stored(want[first - start :], row, got.dtype)
            assert_close(got[first:], expected, "bfloat16 stochastic" if narrow else "float32 averages", context=f"row {row}")
        kind = "bfloat16 store" if table.direction.dtype is BF16 else "float32"
        assert_close(table.direction[first:], u[first - start :], kind, context="direction")
        sums = np.array([np.sum(x[first - start :] ** 2) for x in (u, target)])
        assert_close(table.partials.sum(0), sums, "float32", context="sums")
        scale = (sums[1] / sums[0]) ** 0.25
        assert_close(table.scales, np.array([scale]), "float32", context="scale")

        before, direction = old[0][stepped - start :].double().numpy(), table.direction[stepped:].double().numpy()
        moved = before - self.hyper.lr * (direction * scale**2 + self.hyper.weight_decay * before)
        expected = self.stored(moved, rounding.PARAM_ROW, leaf.param.dtype)
        assert_close(leaf.param[stepped:], expected, "bfloat16 stochastic" if leaf.param.dtype is BF16 else "float32", context="parameter")

        for tensor, values, end in zip((leaf.param, *rows), old, (stepped, *[first] * len(rows)), strict=True):
            assert torch.equal(tensor[start:end], values[: end - start]), "an element before the tiles that ran was written"
        assert torch.isnan(table.direction[start:first]).all()
