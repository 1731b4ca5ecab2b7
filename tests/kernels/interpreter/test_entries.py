"""The table entry (torch) and the direct entry (jax) give the same bits."""

from __future__ import annotations

import pytest
import torch

from sonew.config import Hyper
from sonew_kernels.direction import direction_direct
from sonew_kernels.norms import norms_direct
from sonew_kernels.prologue import prologue_direct
from sonew_kernels.spec import Graft, Slot, Storage, border_record, outer_gradients, triton_launches
from sonew_kernels.update import update_direct
from tests.kernels.interpreter.harness import Group, config


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal bit for bit, NaN included."""
    kinds = {torch.float32: torch.int32, torch.float64: torch.int64, torch.bfloat16: torch.int16}
    return torch.equal(a.contiguous().view(kinds.get(a.dtype, a.dtype)), b.contiguous().view(kinds.get(b.dtype, b.dtype)))


@pytest.mark.parametrize(
    ("band", "size", "chain", "graft", "dtype", "state"),
    [
        (0, 300, "tensor", "adam", torch.float32, torch.float32),
        (1, 260, 9, "rmsprop", torch.bfloat16, torch.float32),
        (3, 252, "tensor", "adam_uncorrected", torch.float32, torch.bfloat16),
        (2, 1, "row", "none", torch.bfloat16, torch.bfloat16),
        (16, 241, "tensor", "adam", torch.float32, torch.bfloat16),
    ],
)
def test_direct_entry_gives_the_bits_of_the_table_entry(
    band: int, size: int, chain: int | str, graft: str, dtype: torch.dtype, state: torch.dtype
) -> None:
    """Every output of every phase, with old and new state in separate buffers on the direct side."""
    stochastic = dtype is torch.bfloat16
    hyper = Hyper(band=band, chain=chain, graft=graft, lr=0.1, weight_decay=0.01, stochastic_rounding=stochastic)  # type: ignore[arg-type]
    group = Group((size,), hyper, param_dtype=dtype, grad_dtype=dtype, state_dtype=state, direction_dtype=state)
    leaf, table = group.leaves[0], group.stepper.table
    old = {name: getattr(leaf, name).clone() for name in ("param", "momentum", "stats", "count")}
    group.run()

    launches = triton_launches(config().as_dict(), band)
    tiles = len(table.tiles)
    new = {name: torch.full_like(tensor, -1) for name, tensor in old.items()}
    corrections, scale = torch.full((2,), float("nan")), torch.full((1,), float("nan"))
    edges = torch.full((tiles + 1, *border_record(band)), float("nan"), dtype=state)
    outer = torch.full(outer_gradients(band), float("nan"))
    direction, partials = torch.full((size,), float("nan"), dtype=state), torch.full((tiles, 2), float("nan"), dtype=torch.float64)
    numbers, code = table.hyper, int(Graft[graft.upper()])
    prologue_direct[(-(-tiles // launches["prologue"].unit),)](
        old["momentum"], old["stats"], old["count"], numbers, new["count"], corrections, edges, size, **launches["prologue"].constants
    )
    seed = torch.tensor(leaf.seed, dtype=torch.int32)
    counted = (numbers, seed, new["count"])
    buffers = (old["momentum"], old["stats"], edges, outer, corrections, *counted, new["momentum"], new["stats"])
    where = {"length": size, "start": 0, "total": size, "chain": leaf.chain}
    stored = {name: int(Storage[str(kind).removeprefix("torch.").upper()]) for name, kind in (("param", dtype), ("state", state))}
    scratch = {"DIRECTION_STORAGE": stored["state"]}
    facts = {"GRAFT": code, "CHAINED": leaf.chain < size, "PIECES": False, "STATE_STORAGE": stored["state"], **scratch}
    direction_direct[(tiles,)](group.grads[0], *buffers, direction, partials, **where, **facts, **launches["direction"].constants)
    norms_direct[(1,)](partials, scale, size, GRAFT=code, **launches["norms"].constants)
    ways = {"STORAGE": stored["param"], "STOCHASTIC": stochastic, **scratch}
    rate = numbers[int(Slot.LR)]
    update_direct[(len(table.update_tiles),)](
        old["param"], direction, scale, numbers, rate, *counted[1:], new["param"], size, 0, **ways, **launches["update"].constants
    )

    for name, tensor in new.items():
        assert same_bits(tensor, getattr(leaf, name)), name
    pairs = ((corrections, table.corrections[0]), (edges, table.edges), (partials, table.partials), (scale, table.scales))
    assert all(same_bits(a, b) for a, b in pairs)
    assert same_bits(direction, table.direction[:size])
