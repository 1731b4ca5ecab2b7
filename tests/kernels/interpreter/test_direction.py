"""The direction kernel (accumulate, factor, apply, partial norms) against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sonew.config import Chain, Hyper
from tests.kernels.interpreter.harness import Group
from tests.strategies import awkward_sizes
from tests.tolerances import assert_close

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16


def check_direction(group: Group) -> None:
    """Direction, state and partial norms of every tensor are the reference's; nothing else was written."""
    expected = [group.expected(i) if size else None for i, size in enumerate(group.sizes)]
    group.stepper.prologue()
    group.stepper.direction()
    table = group.stepper.table
    first = [*table.rows[:, 10].tolist(), len(table.tiles)]
    for i, want in enumerate(expected):
        sums = table.partials[first[i] : first[i + 1]].sum(0).numpy()
        if want is None:
            assert (sums == 0).all()
            continue
        u, target, momentum, stats = want
        context = f"band {group.hyper.band}, size {group.sizes[i]}"
        assert_close(group.direction(i), u, "float32", context=f"direction, {context}")
        assert_close(group.leaves[i].momentum, momentum, "float32 averages", context=f"momentum, {context}")
        assert_close(group.leaves[i].stats, stats, "float32 averages", context=f"stats, {context}")
        assert_close(sums, np.array([u @ u, target @ target]), "float32", context=f"norms, {context}")
    assert group.intact()


@pytest.mark.parametrize("band", [1, 4])
def test_sizes_around_tile_and_block(band: int) -> None:
    """Sizes 0, 1, band, band + 1 and around a tile and a block, in one group."""
    group = Group(awkward_sizes(band, 128 - band, 128), Hyper(band=band))
    check_direction(group)


@pytest.mark.parametrize(
    ("band", "chain", "graft", "grad_dtype", "sizes"),
    [
        (0, "tensor", "adam", F32, (1, 128, 300)),
        (0, 7, "none", BF16, (129,)),
        (1, "row", "rmsprop", BF16, (1, 127)),
        (1, 5, "adam_uncorrected", F32, (128, 255)),
        (2, "tensor", "sgd", F16, (2, 3, 253)),
        (2, 1, "adam", F32, (130,)),
        (3, 2, "rmsprop", F32, (251,)),
        (3, "tensor", "adam", BF16, (125, 126)),
        (5, 123, "adam", F32, (5, 6, 300)),
        (6, "tensor", "none", BF16, (245,)),
        (7, 4, "sgd", F32, (122,)),
        (8, "tensor", "adam_uncorrected", F32, (8, 9, 121)),
        (8, 13, "adam", F16, (247,)),
        (16, "tensor", "adam", F32, (16, 17, 241)),
        (16, 19, "rmsprop", BF16, (113,)),
    ],
)
def test_pairs_of_settings(band: int, chain: Chain, graft: str, grad_dtype: torch.dtype, sizes: tuple[int, ...]) -> None:
    """Bands, chain modes, grafts and gradient types, each pair of neighbours met at least once."""
    hyper = Hyper(band=band, chain=chain, graft=graft, eps=1e-6, eps_rel=1e-3, gamma=1e-4)  # type: ignore[arg-type]
    check_direction(Group(sizes, hyper, grad_dtype=grad_dtype, seed=band))


def test_pivot_rule() -> None:
    """A large gamma makes some columns fall back, as the reference decides, and the direction is another one."""
    strict = Group((130,), Hyper(band=2, gamma=0.5))
    plain = Group((130,), Hyper(band=2))
    check_direction(strict)
    check_direction(plain)
    different = np.mean(strict.direction(0) != plain.direction(0))
    assert 0.2 < different < 1.0
