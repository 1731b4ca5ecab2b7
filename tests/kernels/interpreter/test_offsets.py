"""Tensors of more than 2^31 elements: their last tiles step like the reference, though no such tensor is in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from triton.runtime.interpreter import InterpreterBuilder

from sonew.backends.triton_torch import StepGroup
from sonew.config import Chain, Hyper, LaunchConfig, Plan, Problem
from sonew_kernels.spec import triton_launches
from tests.huge import BEYOND, Huge, tail_start
from tests.kernels.interpreter.harness import Group
from tests.kernels.interpreter.mutants import Fault, load_kernels

F32, BF16 = torch.float32, torch.bfloat16
BAND: Final = 2
CONFIG: Final = {"block": 4096, "num_warps": 16, "update_block": 4096, "update_num_warps": 8}
TILE: Final = CONFIG["block"] - BAND
TILES: Final = 4  # direction tiles that run, the tensor's last ones
UPDATE_TILES: Final = 3  # update tiles that run, inside them


def huge_group(length: int, chain: Chain, kind: torch.dtype) -> tuple[Huge, StepGroup]:
    """A huge tensor with state, parameter and direction of type `kind`, and the step group over it."""
    hyper = Hyper(band=BAND, lr=0.3, weight_decay=0.1, eps=1e-3, chain=chain, stochastic_rounding=True)
    start = tail_start(length, 1 if chain == "tensor" else int(chain), (TILES + 1) * TILE)
    huge = Huge.of(length, Group((length - start,), hyper, param_dtype=kind, state_dtype=kind, direction_dtype=kind))
    kinds: dict[str, Any] = dict.fromkeys(("param_dtype", "state_dtype", "direction_dtype"), str(kind).removeprefix("torch."))
    problem = Problem(device="cpu", band=BAND, total=length, median=length, **kinds)
    plan = Plan(problem=problem, backend="triton", config=LaunchConfig.of("triton", CONFIG), provenance="test")
    stepper = StepGroup([huge.leaf], plan, direction=huge.direction)
    stepper.set_hyper(hyper)
    stepper.bind([huge.grad])
    return huge, stepper


def launch(stepper: StepGroup, name: str, programs: Sequence[int], patch: pytest.MonkeyPatch) -> None:
    """Run only these programs of one launch."""
    set_index, set_grid, grid = InterpreterBuilder.set_grid_idx, InterpreterBuilder.set_grid_dim, stepper._grids[name]
    with patch.context() as inner:
        inner.setattr(InterpreterBuilder, "set_grid_dim", lambda builder, _x, y, z: set_grid(builder, *grid, y, z))
        inner.setattr(InterpreterBuilder, "set_grid_idx", lambda builder, x, y, z: set_index(builder, programs[x], y, z))
        inner.setitem(stepper._grids, name, (len(programs),))
        getattr(stepper, name)()


def check(huge: Huge, stepper: StepGroup, patch: pytest.MonkeyPatch) -> None:
    """The first program, which counts, and the last ones of every phase."""
    grids = {name: grid[0] for name, grid in stepper._grids.items()}
    borders, last = triton_launches(CONFIG, BAND)["prologue"].unit, grids["direction"] - TILES
    programs = {
        "prologue": sorted({0, last // borders, grids["prologue"] - 1}),
        "direction": range(last, grids["direction"]),
        "norms": [0],
        "update": range(grids["update"] - UPDATE_TILES, grids["update"]),
    }

    def run() -> None:
        for name, chosen in programs.items():
            launch(stepper, name, chosen, patch)

    huge.check(stepper.table, run, first=last * TILE, stepped=(grids["update"] - UPDATE_TILES) * CONFIG["update_block"])


@pytest.mark.parametrize(
    ("length", "chain", "kind"),
    [(2**31 + BEYOND, "tensor", F32), (2**32 + BEYOND, 1000, F32), (2**32 + BEYOND, "tensor", BF16)],
)
def test_the_last_tiles_of_a_huge_tensor_step_like_the_reference(
    length: int, chain: Chain, kind: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(*huge_group(length, chain, kind), monkeypatch)


CUT: Final = ".to(tl.uint32)"
FAULTS: Final = {
    "chains": Fault("band", "origin = start + first - BAND", f"origin = (start + first - BAND){CUT}.to(tl.int64)"),
    "first element of a tile": Fault("block", "first = tile * TILE", f"first = (tile * TILE){CUT}.to(tl.int64)"),
    "direction": Fault("block", "tl.store(direction + element,", f"tl.store(direction + element{CUT},"),
    "rows stored": Fault("block", "else stats + (row - 1) * length + element", f"else stats + ((row - 1) * length + element){CUT}"),
    "rows loaded": Fault("window", "(q - r) * place[r][1]", f"((q - r) * place[r][1]){CUT}"),
    "borders": Fault("prologue", "border = index * TILE", f"border = (index * TILE){CUT}.to(tl.int64)"),
    "rows at borders": Fault(
        "prologue", "stats[:, None] + k * length[:, None] + element", f"stats[:, None] + (k * length[:, None] + element){CUT}"
    ),
    "number of sums": Fault("norms", "tl.load(cells + LENGTH) + TILE - 1", f"tl.load(cells + LENGTH){CUT} + TILE - 1"),
    "first element of an update tile": Fault("update", "first = tile * BLOCK", f"first = (tile * BLOCK){CUT}.to(tl.int64)"),
    "noise": Fault("storage", "(element >> 32)", "(element >> 63)"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_offset_cut_to_32_bits_is_caught(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_kernels(tmp_path, monkeypatch, FAULTS[name])
    huge, stepper = huge_group(2**32 + BEYOND, *("tensor", BF16) if name == "noise" else (1000, F32))
    with pytest.raises(AssertionError):
        check(huge, stepper, monkeypatch)
