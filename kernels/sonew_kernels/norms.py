"""Norms: reduce each tensor's partial sums in a fixed order to the square root of |a| / |u|."""

import triton
import triton.language as tl

from sonew_kernels.band import ACTIVE, COLUMNS, FIRST_TILE, LENGTH
from sonew_kernels.spec import Graft

NONE: tl.constexpr = tl.constexpr(int(Graft.NONE))
AT_ONCE: tl.constexpr = tl.constexpr(2)


@triton.jit
def graft_scale(partials, tiles, GRAFT: tl.constexpr, BLOCK: tl.constexpr):
    """Square root of |a| / |u| from `tiles` pairs (sum u^2, sum a^2): applied twice it neither overflows nor flushes.

    0 where |u| = 0, NaN where it is not finite.
    """
    u_sum = tl.zeros((BLOCK,), tl.float64)
    a_sum = tl.zeros((BLOCK,), tl.float64)
    if GRAFT == NONE:
        scale = 1.0
    else:
        for begin in range(0, tiles, AT_ONCE * BLOCK):
            for part in tl.static_range(AT_ONCE):  # loads in flight together: the sums of a large tensor wait for memory, not for adders
                index = begin + part * BLOCK + tl.arange(0, BLOCK)
                u_sum += tl.load(partials + 2 * index, mask=index < tiles, other=0.0)
                a_sum += tl.load(partials + 2 * index + 1, mask=index < tiles, other=0.0)
        u_square = tl.sum(u_sum, 0)
        ratio = tl.sum(a_sum, 0) / tl.where(u_square == 0.0, 1.0, u_square)
        scale = tl.where(u_square == 0.0, 0.0, tl.sqrt(tl.sqrt(ratio)) + (u_square - u_square)).to(tl.float32)
    return scale


@triton.jit
def norms_table(rows, partials, scales, GRAFT: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr):
    """Norms phase of a group, one program per tensor; inactive tensors keep their scale."""
    row = tl.program_id(0).to(tl.int64)
    cells = rows + row * COLUMNS
    if tl.load(cells + ACTIVE) != 0:
        tiles = tl.maximum((tl.load(cells + LENGTH) + TILE - 1) // TILE, 1)
        scale = graft_scale(partials + 2 * tl.load(cells + FIRST_TILE), tiles, GRAFT, BLOCK)
        tl.store(scales + row, scale)


@triton.jit
def norms_direct(partials, scales, length, GRAFT: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr):
    """Norms phase of one leaf, one program."""
    tiles = tl.maximum((tl.full((), length, tl.int64) + TILE - 1) // TILE, 1)
    tl.store(scales, graft_scale(partials, tiles, GRAFT, BLOCK))
