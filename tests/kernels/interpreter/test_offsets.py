"""Tensors of more than 2^31 elements: their last tiles step like the reference, though no such tensor is in memory.

Their elements lie in private mappings of which only the touched pages exist, and only some programs of each launch run.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from triton.runtime.interpreter import InterpreterBuilder

from sonew import rounding
from sonew.backends.table import Leaf
from sonew.backends.triton_torch import StepGroup
from sonew.config import Chain, Hyper, LaunchConfig, Plan, Problem
from sonew_kernels.spec import triton_launches
from tests.kernels.interpreter.harness import Group
from tests.kernels.interpreter.mutants import Fault, load_kernels
from tests.tolerances import assert_close

F32, BF16 = torch.float32, torch.bfloat16
BAND: Final = 2
BLOCK: Final = 4096
TILE: Final = BLOCK - BAND
TILES: Final = 4  # direction tiles that run, the tensor's last ones; the last three update tiles lie inside them
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


class Huge:
    """A tensor of `length` elements whose tail has a past and a gradient; everything before it is zero.

    `tail` is the tail as a tensor of its own, for the reference.
    """

    def __init__(self, length: int, chain: Chain, kind: torch.dtype) -> None:
        """Make the tensors; `kind` is the type of state, parameter and direction."""
        self.length, self.kind = length, kind
        self.hyper = Hyper(band=BAND, lr=0.3, weight_decay=0.1, eps=1e-3, chain=chain, stochastic_rounding=True)
        period = 1 if chain == "tensor" else int(chain)
        self.start = (length - (TILES + 1) * TILE) // period * period  # a chain of the tail's own begins there
        self.tail = Group((length - self.start,), self.hyper, param_dtype=kind, state_dtype=kind, direction_dtype=kind)
        source = self.tail.leaves[0]
        param, momentum, grad, direction = (sparse((length,), dtype) for dtype in (kind, kind, F32, kind))
        stats = sparse((BAND + 1, length), kind)
        for home, values in ((param, source.param), (momentum, source.momentum), (stats, source.stats), (grad, self.tail.grads[0])):
            home[..., self.start :] = values
        direction[self.start :] = float("nan")
        self.leaf = Leaf(param, momentum, stats, source.count.clone(), length if chain == "tensor" else period, source.seed)
        self.config = {"block": BLOCK, "num_warps": 16, "update_block": BLOCK, "update_num_warps": 8}
        name = str(kind).removeprefix("torch.")
        kinds: dict[str, Any] = {"param_dtype": name, "state_dtype": name, "direction_dtype": name}
        problem = Problem(device="cpu", band=BAND, total=length, median=length, **kinds)
        plan = Plan(problem=problem, backend="triton", config=LaunchConfig.of("triton", self.config), provenance="test")
        self.stepper = StepGroup([self.leaf], plan, direction=direction)
        self.stepper.set_hyper(self.hyper)
        self.stepper.bind([grad])
        self.grad = grad

    def launch(self, name: str, programs: Sequence[int], patch: pytest.MonkeyPatch) -> None:
        """Run only these programs of one launch."""
        set_index, set_grid, grid = InterpreterBuilder.set_grid_idx, InterpreterBuilder.set_grid_dim, self.stepper._grids[name]
        with patch.context() as inner:
            inner.setattr(InterpreterBuilder, "set_grid_dim", lambda builder, _x, y, z: set_grid(builder, *grid, y, z))
            inner.setattr(InterpreterBuilder, "set_grid_idx", lambda builder, x, y, z: set_index(builder, programs[x], y, z))
            inner.setitem(self.stepper._grids, name, (len(programs),))
            getattr(self.stepper, name)()

    def run(self, patch: pytest.MonkeyPatch) -> int:
        """The first program, which counts, and the last ones of every phase; returns the first element that was stepped."""
        grids = {name: grid[0] for name, grid in self.stepper._grids.items()}
        borders = triton_launches(self.config, BAND)["prologue"].unit
        last = grids["direction"] - TILES
        self.launch("prologue", sorted({0, last // borders, grids["prologue"] - 1}), patch)
        self.launch("direction", range(last, grids["direction"]), patch)
        self.launch("norms", [0], patch)
        self.launch("update", range(grids["update"] - 3, grids["update"]), patch)
        return last * TILE

    def rounded(self, values: np.ndarray, first: int, row: int) -> Any:
        """float64 values of the elements from `first` on, as row `row` of the state, or as the parameter, is to be stored."""
        exact = values.astype(np.float32)
        if self.kind is F32:
            return exact
        seed, count = (np.array([number], dtype=np.int32) for number in (self.leaf.seed, int(self.leaf.count)))
        return rounding.round_to_bfloat16(np, exact, noise(seed, count, row, np.arange(first, self.length)))


def check(huge: Huge, patch: pytest.MonkeyPatch) -> None:
    """Every phase of the last tiles against the float64 reference of the tail."""
    leaf, table, start = huge.leaf, huge.stepper.table, huge.start
    rows = (leaf.momentum, *leaf.stats)
    old = [row[start:].clone() for row in (leaf.param, *rows)]
    u, target, momentum, stats = huge.tail.expected(0)
    first = huge.run(patch)
    inside = slice(first - start, None)
    assert huge.length - first > (TILES - 1) * TILE

    assert leaf.count == huge.tail.leaves[0].count + 1
    averages, values, store = (
        ("bfloat16 stochastic", "bfloat16 store", "bfloat16 stochastic")
        if huge.kind is BF16
        else ("float32 averages", "float32", "float32")
    )
    for row, (got, want) in enumerate(zip(rows, (momentum, *stats), strict=True)):
        assert_close(got[first:], huge.rounded(want[inside], first, row), averages, context=f"row {row}")
    assert_close(table.direction[first:], u[inside], values, context="direction")
    sums = np.array([np.sum(x[inside] ** 2) for x in (u, target)])
    assert_close(table.partials.sum(0), sums, "float32", context="sums")
    scale = (sums[1] / sums[0]) ** 0.25
    assert_close(table.scales, np.array([scale]), "float32", context="scale")
    stepped = (huge.stepper._grids["update"][0] - 3) * BLOCK
    before = old[0].double().numpy()[stepped - start :]
    direction = table.direction[stepped:].double().numpy()
    want = before - huge.hyper.lr * (direction * scale**2 + huge.hyper.weight_decay * before)
    assert_close(leaf.param[stepped:], huge.rounded(want, stepped, rounding.PARAM_ROW), store, context="parameter")

    for tensor, values_before, end in zip((leaf.param, *rows), old, (stepped, *[first] * len(rows)), strict=True):
        assert torch.equal(tensor[start:end], values_before[: end - start]), "an element before the tiles that ran was written"
    assert torch.isnan(table.direction[start:first]).all()


@pytest.mark.parametrize(
    ("length", "chain", "kind"),
    [(2**31 + BEYOND, "tensor", F32), (2**32 + BEYOND, 1000, F32), (2**32 + BEYOND, "tensor", BF16)],
)
def test_the_last_tiles_of_a_huge_tensor_step_like_the_reference(
    length: int, chain: Chain, kind: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(Huge(length, chain, kind), monkeypatch)


CUT: Final = ".to(tl.uint32)"
FAULTS: Final = {
    "chains": Fault("band", "origin = start + first - BAND", f"origin = (start + first - BAND){CUT}.to(tl.int64)"),
    "first element of a tile": Fault("direction", "first = tile * TILE", f"first = (tile * TILE){CUT}.to(tl.int64)"),
    "direction": Fault("direction", "tl.store(direction + element,", f"tl.store(direction + element{CUT},"),
    "rows stored": Fault("direction", "else stats + (row - 1) * length + element", f"else stats + ((row - 1) * length + element){CUT}"),
    "rows loaded": Fault("window", "(q - r) * place[r][1]", f"((q - r) * place[r][1]){CUT}"),
    "borders": Fault("prologue", "border = index * TILE", f"border = (index * TILE){CUT}.to(tl.int64)"),
    "rows at borders": Fault("prologue", "stats + k * length + element", f"stats + (k * length + element){CUT}"),
    "number of sums": Fault("norms", "tl.load(cells + LENGTH) + TILE - 1", f"tl.load(cells + LENGTH){CUT} + TILE - 1"),
    "first element of an update tile": Fault("update", "first = tile * BLOCK", f"first = (tile * BLOCK){CUT}.to(tl.int64)"),
    "noise": Fault("storage", "(element >> 32)", "(element >> 63)"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_offset_cut_to_32_bits_is_caught(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_kernels(tmp_path, monkeypatch, FAULTS[name])
    huge = Huge(2**32 + BEYOND, "tensor", BF16) if name == "noise" else Huge(2**32 + BEYOND, 1000, F32)
    with pytest.raises(AssertionError):
        check(huge, monkeypatch)
