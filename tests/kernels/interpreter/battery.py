"""Small checks that together see every part of the kernels: comparisons of this folder's tests, on sizes that take a moment.

Each raises AssertionError where the kernels are wrong. `test_mutations` runs them on kernels with planted faults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest
import torch

from sonew import reference, rounding
from sonew.config import Hyper
from sonew_kernels.spec import Column
from tests.kernels.interpreter import (
    joined,
    test_bfloat16,
    test_entries,
    test_extremes,
    test_hazards,
    test_norms,
    test_pieces,
    test_prologue,
    test_update,
)
from tests.kernels.interpreter.harness import Group
from tests.tolerances import assert_close

USERS: Final = (joined, test_norms)
BF16: Final = torch.bfloat16
ODD: Final[Mapping[str, Any]] = {"lr": 0.3, "weight_decay": 0.25, "eps": 0.05, "eps_rel": 0.02}  # no setting at a neutral value


def check_step(group: Group) -> None:
    """Direction, norms, scale, state and parameter of every tensor are the float64 reference's; nothing around them was written."""
    hyper, table = group.hyper, group.stepper.table
    before = [leaf.param.double().numpy().copy() for leaf in group.leaves]
    expected = [group.expected(i) for i in range(len(group.sizes))]
    group.run()
    first = [*table.rows[:, Column.FIRST_TILE].tolist(), len(table.tiles)]
    for i, (leaf, (u, target, momentum, stats)) in enumerate(zip(group.leaves, expected, strict=True)):
        context = f"{hyper}, size {group.sizes[i]}"
        assert_close(leaf.momentum, momentum, "float32 averages", context=f"momentum, {context}")
        assert_close(leaf.stats, stats, "float32 averages", context=f"stats, {context}")
        assert_close(group.direction(i), u, "float32", context=f"direction, {context}")
        sums = table.partials[first[i] : first[i + 1]].sum(0)
        assert_close(sums, np.array([u @ u, target @ target]), "float32", context=f"norms, {context}")
        grafted = u if hyper.graft == "none" else reference.graft(np, u, target)
        want = before[i] - hyper.lr * (grafted + hyper.weight_decay * before[i])
        assert_close(leaf.param, want, "float32", context=f"parameter, {context}")
    assert group.intact()


def steps() -> None:
    """Several tiles beside tensors of other ages, one of them shorter than the halo."""
    group = Group((7, 100, 2), Hyper(band=2, **ODD), block=64)
    group.leaves[0].count.fill_(3)
    check_step(group)


def chains() -> None:
    """Chains that end inside tiles, at their borders and inside the halo."""
    check_step(Group((100, 9), Hyper(band=3, chain=7, **ODD), block=64))


def pivots() -> None:
    """A large gamma: the share of columns that fall back is neither none nor all; then a NaN beside sound diagonals."""
    check_step(Group((70,), Hyper(band=2, gamma=0.6, **ODD), block=64))
    group = Group((30,), Hyper(band=1, graft="none", **ODD))
    group.leaves[0].stats[1, 20] = float("nan")
    u, *_ = group.expected(0)
    assert np.isfinite(u).all()
    group.run()
    assert_close(group.direction(0), u, "float32", context="a column with a NaN off its diagonal")


def grafts() -> None:
    """Every target, early in a tensor's life, where corrections matter."""
    for graft in ("adam", "adam_uncorrected", "rmsprop", "sgd", "none"):
        settings: Any = {"graft": graft}
        check_step(Group((30,), Hyper(band=0, **ODD, **settings), steps=3))


def wide_band() -> None:
    """Two tiles of band 16, which is loaded by rows."""
    check_step(Group((115,), Hyper(band=16, **ODD)))
    test_bfloat16.test_state_is_the_float32_state_rounded_and_the_direction_does_not_feel_it(16, (20,))


def inactive() -> None:
    """A tensor marked inactive, whatever stands in its row, keeps its state, parameter, count and scale."""
    group = Group((20, 20), Hyper(band=1, **ODD), block=64)
    table, leaf = group.stepper.table, group.leaves[1]
    table.rows[1, Column.ACTIVE] = 0
    table.scales[1] = 7.0
    held = (leaf.param, leaf.momentum, leaf.stats, leaf.count, table.scales[1])
    before = [tensor.clone() for tensor in held]
    group.run()
    assert all(torch.equal(a, b) for a, b in zip(before, held, strict=True))
    assert torch.isnan(table.corrections[1]).all()


def tiles() -> None:
    """What tiles may not change: u and bfloat16 state, bit for bit."""
    groups = [Group((130,), Hyper(band=2, **ODD), block=block, state_dtype=BF16) for block in (64, 256)]
    for group in groups:
        group.run()
    one, other = (group.leaves[0] for group in groups)
    assert torch.equal(one.momentum, other.momentum)
    assert torch.equal(one.stats, other.stats)
    assert np.array_equal(groups[0].direction(0), groups[1].direction(0))


def rounded_state() -> None:
    """bfloat16 state is the float32 state rounded with the noise of its row."""
    test_bfloat16.test_state_is_the_float32_state_rounded_and_the_direction_does_not_feel_it(1, (130,))


def rounded_parameters() -> None:
    """bfloat16 parameters, with their own noise, and with that of their place where a tensor is a piece of a larger one."""
    test_bfloat16.test_parameters_are_written_stochastically_on_request(torch.float32)
    start = 5
    groups = [Group((40,), Hyper(band=0, lr=0.1, stochastic_rounding=dtype is BF16), param_dtype=dtype) for dtype in (torch.float32, BF16)]
    groups[0].leaves[0].param.copy_(groups[1].leaves[0].param)
    rows = groups[1].stepper.table.rows
    rows[0, Column.START], rows[0, Column.TOTAL] = start, start + 40
    for group in groups:
        group.run()
    wide, narrow = (group.leaves[0] for group in groups)
    key = [np.array([number], dtype=np.int32) for number in (narrow.seed, int(narrow.count))]
    bits = rounding.noise(key[0], key[1], rounding.PARAM_ROW, np.arange(start, start + 40, dtype=np.int32))
    want = torch.from_numpy(rounding.round_to_bfloat16(np, wide.param.numpy(), bits)).bfloat16()
    assert torch.equal(narrow.param, want)


def broken_numbers() -> None:
    """NaN of any payload stays NaN where it is rounded; what is not finite stays inside its band and chain."""
    group = Group((30,), Hyper(band=0, stochastic_rounding=True), param_dtype=BF16, state_dtype=BF16, direction_dtype=BF16)
    for value, element in zip((0x7FFFFFFF, -1, 0x7FC00000), (3, 4, 5), strict=True):
        group.grads[0].view(torch.int32)[element] = value
    group.run()
    leaf = group.leaves[0]
    for tensor in (leaf.momentum, leaf.stats[0], group.stepper.table.direction[:30], leaf.param):
        assert torch.isnan(tensor[3:6]).all()
    assert torch.isfinite(leaf.momentum).sum() == 27
    test_extremes.test_a_broken_gradient_shows_and_stays_where_it_is(float("nan"))


def small_and_large() -> None:
    """Dead diagonals, no damping, directions whose squares overflow float32."""
    test_extremes.test_a_dead_diagonal_gives_no_direction_and_nan_stays_nan(0.0)
    test_extremes.test_eps_zero_with_an_ordinary_past()
    test_extremes.test_direction_of_any_finite_size_grafts_without_overflow()


def counts() -> None:
    """Counts, also of a tensor that several programs share, and corrections near beta 1; border records and nothing else."""
    group = Group((62 * 70,), Hyper(band=2), block=64, steps=1)
    group.stepper.prologue()
    assert group.leaves[0].count == 1
    assert torch.isnan(group.stepper.table.edges[[0, -1]]).all()
    test_prologue.test_counts_and_corrections()
    test_prologue.test_correction_has_no_cancellation(1 - 1e-12, 1)
    test_prologue.test_correction_has_no_cancellation(0.9, 1)
    test_prologue.test_borders_hold_old_values_and_nothing_else_is_written(1)


def norms() -> None:
    """Sums of each tensor's own tiles, in several rounds, with their special cases."""
    test_norms.test_scale_of_every_tensor()
    test_norms.test_more_tiles_than_one_block(100)


def updates() -> None:
    """The update bit for bit, full tiles, tails and the aligned path."""
    test_update.test_update_is_exact_in_every_storage_type(BF16)
    test_update.test_aligned_and_unaligned_paths_agree(0)


def joined_tensors() -> None:
    """Joined tensors of several tiles, chains and seeds, out of place: the bits of the table entry; norms and their roots."""
    twins = test_entries.twins((70, 3, 130), (0, 0, 9), Hyper(band=2, **ODD), block=64, state_dtype=BF16)
    test_entries.check_entries(*twins, in_place=False)


def pieces() -> None:
    """Two devices' pieces of joined tensors, the second's in place, give the bits of the whole; their noise follows their place."""
    test_pieces.check_shards(Group((2 * 63, 2, 9), Hyper(band=2, chain=7), block=64, state_dtype=BF16), (True, True, False), 2)
    test_bfloat16.test_the_noise_follows_the_position_in_the_tensor_beyond_32_bits()


def pieces_in_a_table() -> None:
    """Three pieces of one tensor, side by side in a group's table, with their records filled by hand: the bits of the whole."""
    test_pieces.check_table(Group((100,), Hyper(band=2, **ODD), block=64, state_dtype=BF16), (30, 67))


def signals() -> None:
    """A loss scale of a power of two and a sign change no bit; a skipped step and a rate of 0 leave all bits; fallen columns count."""
    sizes, settings = (130, 3), Hyper(band=2, gamma=0.8, **ODD)
    plain, scaled = Group(sizes, settings, block=64), Group(sizes, replace(settings, maximize=True), block=64)
    for grad in scaled.grads:
        grad.mul_(-4.0)
    scaled.stepper._options["direction"]["COUNTED"] = True
    fallen = [int(reference.fallen_columns(np, *_corrected(plain, i), settings).sum()) for i in range(len(sizes))]
    assert 0 < fallen[0] < sizes[0]
    for group, scale in ((plain, None), (scaled, torch.tensor(4.0))):
        group.stepper.signal(scale, None)
        group.run()
    for one, other in zip(plain.leaves, scaled.leaves, strict=True):
        assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("param", "momentum", "stats", "count"))
    assert scaled.stepper.counted().tolist() == [[count, 1.0] for count in fallen]
    held = [getattr(leaf, name) for leaf in plain.leaves for name in ("param", "momentum", "stats", "count")]
    before = [tensor.clone() for tensor in held]
    plain.stepper.signal(None, torch.tensor(1.0))
    plain.run()
    assert all(map(torch.equal, held, before))
    plain.leaves[0].param[:] = before[0][:] = -0.0
    plain.stepper.set_hyper(replace(settings, lr=0.0))
    plain.stepper.signal(None, None)
    plain.run()
    assert plain.leaves[0].count == before[3] + 1
    assert all(torch.equal(held[i].view(torch.int32), before[i].view(torch.int32)) for i in (0, 4))


def _corrected(group: Group, i: int) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """The corrected statistics of tensor i after the coming step, in float64, and its links."""
    _, _, _, stats = group.expected(i)
    leaf, numbers = group.leaves[i], reference.decay_numbers(group.hyper)
    correction = reference.correction(np, np.float64(leaf.count.item() + 1), numbers.log_beta2)
    return stats / correction, reference.chain_links(np, stats[0], group.hyper.band, leaf.chain)


def hazards() -> None:
    """No program touches what another one writes."""
    with pytest.MonkeyPatch.context() as patch:
        test_hazards.test_no_program_touches_what_another_writes(1, "tensor", patch)


CHECKS: Final[Mapping[str, Callable[[], None]]] = {
    check.__name__: check
    for check in (
        *(steps, chains, pivots, grafts, wide_band, inactive, tiles, rounded_state, rounded_parameters, broken_numbers),
        *(small_and_large, counts, norms, updates, joined_tensors, pieces, pieces_in_a_table, signals, hazards),
    )
}
