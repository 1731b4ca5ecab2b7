"""The table entry (torch) and the direct entry (jax) give the same bits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest
import torch

from sonew.config import GraftName, Hyper
from sonew_kernels.spec import Column
from tests.kernels.interpreter.harness import Group
from tests.kernels.interpreter.joined import Joined, Part
from tests.tolerances import assert_close

BF16 = torch.bfloat16


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal bit for bit, NaN included."""
    kinds = {torch.float32: torch.int32, torch.float64: torch.int64, torch.bfloat16: torch.int16}
    return torch.equal(a.contiguous().view(kinds[a.dtype]), b.contiguous().view(kinds[b.dtype]))


def twins(sizes: tuple[int, ...], chains: tuple[int, ...], hyper: Hyper, **settings: Any) -> tuple[Group, Joined]:
    """A group and the same tensors joined; chains of 0 are the tensor's length. All are at one step."""
    group = Group(sizes, hyper, **settings)
    whole = [chain or max(size, 1) for size, chain in zip(sizes, chains, strict=True)]
    group.leaves = [replace(leaf, chain=chain) for leaf, chain in zip(group.leaves, whole, strict=True)]
    group.stepper = group.make_stepper()
    parts = [
        Part(grad=grad, momentum=leaf.momentum, stats=leaf.stats, chain=leaf.chain, seed=leaf.seed)
        for grad, leaf in zip(group.grads, group.leaves, strict=True)
    ]
    kind = settings.get("direction_dtype", torch.float32)
    count = int(group.leaves[0].count) + 1
    return group, Joined(parts, group.stepper.table.hyper, count, block=group.block, graft=hyper.graft, direction_dtype=kind)


def check_entries(group: Group, joined: Joined, *, in_place: bool) -> None:
    """Every output of every phase; what is not to be written is as it was."""
    held = [getattr(joined, name) for name in ("grad", "momentum", "stats", "count", "rows", "tiles", "slots")]
    before = [tensor.clone() for tensor in held]
    group.run()
    joined.run(in_place=in_place)
    table, first = group.stepper.table, group.stepper.table.rows[:, Column.OFFSET].tolist()
    for i, (leaf, start, size) in enumerate(zip(group.leaves, first, group.sizes, strict=True)):
        wanted = (leaf.momentum, leaf.stats, table.direction[start : start + size])
        assert all(map(same_bits, joined.outcome(i), wanted)), i
        assert same_bits(joined.corrections, table.corrections[i]), i
    assert same_bits(joined.partials, table.partials)
    assert not joined.band or same_bits(joined.edges, table.edges)
    sums = [table.partials[table.tiles == i].sum(0).numpy() for i in range(len(first))]
    assert_close(joined.roots, np.stack(sums) ** 0.25, "norms")
    kept = (not in_place or name not in (1, 2) for name in range(len(held)))
    assert all(torch.equal(a, b) for a, b, keep in zip(held, before, kept, strict=True) if keep)
    assert joined.intact()


CASES: Final[list[tuple[int, tuple[int, ...], tuple[int, ...], GraftName, torch.dtype, torch.dtype]]] = [
    (0, (300, 1, 0, 77), (0, 0, 0, 0), "adam", torch.float32, torch.float32),
    (1, (260, 2, 127), (9, 1, 0), "rmsprop", BF16, torch.float32),
    (3, (252, 0, 3, 125), (0, 0, 0, 5), "adam_uncorrected", torch.float32, BF16),
    (2, (1,), (0,), "none", BF16, BF16),
    (8, (130, 400), (0, 50), "sgd", torch.float16, torch.float32),
    (16, (241, 20), (0, 0), "adam", torch.float32, BF16),
]


@pytest.mark.parametrize(
    ("band", "sizes", "chains", "graft", "grad", "state", "in_place"),
    [
        pytest.param(*case, in_place, marks=() if in_place == (i % 2 == 1) else pytest.mark.full)  # in turn: each with every state
        for i, case in enumerate(CASES)
        for in_place in (False, True)
    ],
)
def test_direct_entry_gives_the_bits_of_the_table_entry(
    band: int,
    sizes: tuple[int, ...],
    chains: tuple[int, ...],
    graft: GraftName,
    grad: torch.dtype,
    state: torch.dtype,
    in_place: bool,
) -> None:
    """Tensors of several lengths, chains and seeds in one call, with new state in buffers of its own and in place of the old."""
    hyper = Hyper(band=band, graft=graft, gamma=0.1, eps_rel=0.02, maximize=band % 2 == 1)
    check_entries(*twins(sizes, chains, hyper, grad_dtype=grad, state_dtype=state, direction_dtype=state), in_place=in_place)


@pytest.mark.parametrize("tiles", [64, 65])
def test_tensors_share_the_programs_of_the_prologue(tiles: int) -> None:
    """A tensor that fills a program's borders, or one more, before another one."""
    check_entries(*twins((62 * tiles, 130), (0, 7), Hyper(band=2), block=64, steps=2), in_place=True)


def test_skip_is_the_callers() -> None:
    """The slot SKIP, which leaves a group as it is, does not concern the direct entry: its outputs must be written."""
    group, joined = twins((100, 9), (0, 0), Hyper(band=1), state_dtype=BF16)
    again = twins((100, 9), (0, 0), Hyper(band=1), state_dtype=BF16)[1]
    again.run()
    group.stepper.signal(None, torch.tensor(1.0))
    joined.run()
    assert all(same_bits(a, b) for i in range(2) for a, b in zip(joined.outcome(i), again.outcome(i), strict=True))


def test_roots_come_as_they_are() -> None:
    """Zero, tiny, huge, infinite and NaN sums: the fourth root in float32, which holds the sums of squares of all float32 numbers."""
    _, joined = twins((3, 3, 3, 3), (0, 0, 0, 0), Hyper(band=1))
    largest = float(np.finfo(np.float32).max) ** 2 * 2.0**40
    joined.partials.copy_(torch.tensor([[0.0, 1e-90], [largest, 1.0], [float("inf"), float("nan")], [16.0, 0.0]], dtype=torch.float64))
    joined.norms()
    want = joined.partials.pow(0.25)
    assert_close(joined.roots[:2], want[:2].numpy(), "norms")
    assert same_bits(joined.roots[2:].nan_to_num(1.0, 7.0), torch.tensor([[7.0, 1.0], [2.0, 0.0]]))
