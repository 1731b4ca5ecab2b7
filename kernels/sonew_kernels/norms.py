"""Norms: reduce each tensor's partial sums in a fixed order to the square root of |a| / |u|, or of each norm."""

import triton
import triton.language as tl

from sonew_kernels.band import ACTIVE, COLUMNS, FIRST_TILE, LENGTH, joined_cells
from sonew_kernels.spec import Graft

NONE: tl.constexpr = tl.constexpr(int(Graft.NONE))
AT_ONCE: tl.constexpr = tl.constexpr(2)


@triton.jit
def tensor_sums(cells, partials, TILE: tl.constexpr, BLOCK: tl.constexpr):
    """(sum of u^2, sum of a^2) of the tensor with these cells, float64, from its tiles' pairs."""
    tiles = tl.maximum((tl.load(cells + LENGTH) + TILE - 1) // TILE, 1)
    pairs = partials + 2 * tl.load(cells + FIRST_TILE)
    u_sum = tl.zeros((BLOCK,), tl.float64)
    a_sum = tl.zeros((BLOCK,), tl.float64)
    for begin in range(0, tiles, AT_ONCE * BLOCK):
        for part in tl.static_range(AT_ONCE):  # loads in flight together: the sums of a large tensor wait for memory, not for adders
            index = begin + part * BLOCK + tl.arange(0, BLOCK)
            u_sum += tl.load(pairs + 2 * index, mask=index < tiles, other=0.0)
            a_sum += tl.load(pairs + 2 * index + 1, mask=index < tiles, other=0.0)
    return tl.sum(u_sum, 0), tl.sum(a_sum, 0)


@triton.jit
def graft_scale(cells, partials, GRAFT: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr):
    """Square root of a tensor's |a| / |u|: applied twice it neither overflows nor flushes. 0 where |u| = 0, NaN where it is not finite."""
    if GRAFT == NONE:
        scale = 1.0
    else:
        u_square, a_square = tensor_sums(cells, partials, TILE, BLOCK)
        ratio = a_square / tl.where(u_square == 0.0, 1.0, u_square)
        scale = tl.where(u_square == 0.0, 0.0, tl.sqrt(tl.sqrt(ratio)) + (u_square - u_square)).to(tl.float32)
    return scale


@triton.jit
def norms_table(rows, partials, scales, GRAFT: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr):
    """Norms phase of a group, one program per tensor; inactive tensors keep their scale."""
    row = tl.program_id(0).to(tl.int64)
    cells = rows + row * COLUMNS
    if tl.load(cells + ACTIVE) != 0:
        tl.store(scales + row, graft_scale(cells, partials, GRAFT, TILE, BLOCK))


@triton.jit
def roots_direct(rows, partials, roots, TILE: tl.constexpr, BLOCK: tl.constexpr):
    """Norms phase of joined tensors, one program per tensor: float32 (tensors, 2), square roots of |u| and |a|, as they come.

    What they are for is the caller's, since shards combine theirs. Sums of squares of float32 numbers overflow float32, their
    fourth roots do not.
    """
    row = tl.program_id(0).to(tl.int64)
    u_square, a_square = tensor_sums(joined_cells(rows, row), partials, TILE, BLOCK)
    tl.store(roots + 2 * row, tl.sqrt(tl.sqrt(u_square)).to(tl.float32))
    tl.store(roots + 2 * row + 1, tl.sqrt(tl.sqrt(a_square)).to(tl.float32))
