"""Direction: the entries that take every tile of a group through `block.direction_block`, from a table of addresses or joined buffers."""

import triton
import triton.language as tl

from sonew_kernels.band import (
    ACTIVE,
    CHAIN,
    COLUMNS,
    COUNT,
    FIRST_TILE,
    GRAD,
    LENGTH,
    MOMENTUM,
    OFFSET,
    SEED,
    SKIP,
    START,
    STATS,
    TOTAL,
    joined_cells,
)
from sonew_kernels.block import direction_block
from sonew_kernels.storage import storage_pointer


@triton.jit
def direction_tile(
    grad,
    momentum,
    stats,
    cells,
    tile,
    row,
    length,
    start,
    count,
    hyper,
    corrections,
    edges,
    outer,
    momentum_out,
    stats_out,
    direction,
    partials,
    BAND: tl.constexpr,
    BLOCK: tl.constexpr,
    GRAFT: tl.constexpr,
    CHAINED: tl.constexpr,
    PIECES: tl.constexpr,
    STATE_STORAGE: tl.constexpr,
    DIRECTION_STORAGE: tl.constexpr,
    COUNTED: tl.constexpr,
):
    """Tile `tile` of a group, which is one of the tensor at `row`: its records, sums and numbers are found by the tensor's `cells`.

    The tensor's own arrays, corrections and count are given, all others are the group's. Behind the pairs of partial norms
    stands one float64 per tile, the columns that fell back, written where COUNTED.
    """
    TILE: tl.constexpr = BLOCK - BAND
    RECORD: tl.constexpr = (BAND + 2) * 2 * BAND
    first_tile = tl.load(cells + FIRST_TILE)
    last = tl.maximum((length + TILE - 1) // TILE, 1)
    direction_block(
        grad,
        momentum,
        stats,
        edges + (tile + row) * RECORD,
        edges + (first_tile + row + last) * RECORD,
        outer + row * (2 * BAND),
        corrections,
        hyper,
        momentum_out,
        stats_out,
        direction,
        partials + 2 * tile,
        partials + 2 * tl.num_programs(0) + tile,
        tile - first_tile,
        length,
        start,
        tl.load(cells + TOTAL),
        tl.load(cells + CHAIN),
        tl.load(cells + SEED),
        count,
        BAND,
        BLOCK,
        GRAFT,
        CHAINED,
        PIECES,
        STATE_STORAGE,
        DIRECTION_STORAGE,
        COUNTED,
    )


# `edges` as it is: on AMD Triton would give a tensor below 2 GiB offsets of 32 bits, and cannot choose by lane between such a pointer
# and an address from the table.
@triton.jit(do_not_specialize=["edges"])
def direction_table(
    rows,
    tiles,
    hyper,
    corrections,
    edges,
    outer,
    direction,
    partials,
    BAND: tl.constexpr,
    BLOCK: tl.constexpr,
    GRAFT: tl.constexpr,
    CHAINED: tl.constexpr,
    PIECES: tl.constexpr,
    GRAD_STORAGE: tl.constexpr,
    STATE_STORAGE: tl.constexpr,
    DIRECTION_STORAGE: tl.constexpr,
    COUNTED: tl.constexpr = False,
):
    """Direction phase of a group, one tile per program; inactive tensors are left alone."""
    tile = tl.program_id(0).to(tl.int64)
    row = tl.load(tiles + tile).to(tl.int64)
    cells = rows + row * COLUMNS
    if (tl.load(cells + ACTIVE) != 0) & (tl.load(hyper + SKIP) == 0.0):
        momentum = storage_pointer(tl.load(cells + MOMENTUM), STATE_STORAGE)
        stats = storage_pointer(tl.load(cells + STATS), STATE_STORAGE)
        direction_tile(
            storage_pointer(tl.load(cells + GRAD), GRAD_STORAGE),
            momentum,
            stats,
            cells,
            tile,
            row,
            tl.load(cells + LENGTH),
            tl.load(cells + START),
            tl.load(tl.load(cells + COUNT).to(tl.pointer_type(tl.int32))),
            hyper,
            corrections + 2 * row,
            edges,
            outer,
            momentum,
            stats,
            direction + tl.load(cells + OFFSET),
            partials,
            BAND,
            BLOCK,
            GRAFT,
            CHAINED,
            PIECES,
            STATE_STORAGE,
            DIRECTION_STORAGE,
            COUNTED,
        )


@triton.jit
def direction_direct(
    grad,
    momentum,
    stats,
    rows,
    tiles,
    pieces,
    hyper,
    corrections,
    edges,
    outer_grads,
    count,
    momentum_out,
    stats_out,
    direction,
    partials,
    BAND: tl.constexpr,
    BLOCK: tl.constexpr,
    GRAFT: tl.constexpr,
    CHAINED: tl.constexpr,
    PIECES: tl.constexpr,
    STATE_STORAGE: tl.constexpr,
    DIRECTION_STORAGE: tl.constexpr,
    COUNTED: tl.constexpr = False,
):
    """Direction phase of joined tensors (`spec.Column`), one tile per program.

    Args:
        grad, momentum, stats: the joined arrays; momentum_out, stats_out, direction: where the results go (may be the inputs).
        rows: the table, as `band.joined_cells` takes it. tiles: the tensor of each tile.
        pieces: int32, which piece of its tensor each one is, 0 for whole tensors; pieces of a tensor are equally long.
        corrections, count: one for all tensors. edges, outer_grads, partials: as in the table entry.
    """
    tile = tl.program_id(0).to(tl.int64)
    row = tl.load(tiles + tile).to(tl.int64)
    cells = joined_cells(rows, row)
    length, offset = tl.load(cells + LENGTH), tl.load(cells + OFFSET)
    direction_tile(
        grad + offset,
        momentum + offset,
        stats + (BAND + 1) * offset,
        cells,
        tile,
        row,
        length,
        tl.load(pieces + row).to(tl.int64) * length,
        tl.load(count),
        hyper,
        corrections,
        edges,
        outer_grads,
        momentum_out + offset,
        stats_out + (BAND + 1) * offset,
        direction + offset,
        partials,
        BAND,
        BLOCK,
        GRAFT,
        CHAINED,
        PIECES,
        STATE_STORAGE,
        DIRECTION_STORAGE,
        COUNTED,
    )


@triton.jit
def direction_in_place(
    grad,
    momentum,
    stats,
    rows,
    tiles,
    pieces,
    hyper,
    corrections,
    edges,
    outer_grads,
    count,
    direction,
    partials,
    BAND: tl.constexpr,
    BLOCK: tl.constexpr,
    GRAFT: tl.constexpr,
    CHAINED: tl.constexpr,
    PIECES: tl.constexpr,
    STATE_STORAGE: tl.constexpr,
    DIRECTION_STORAGE: tl.constexpr,
    COUNTED: tl.constexpr = False,
):
    """`direction_direct` that steps momentum and stats where they lie: jax-triton 0.4 has no parameters for outputs that are inputs."""
    direction_direct(
        grad,
        momentum,
        stats,
        rows,
        tiles,
        pieces,
        hyper,
        corrections,
        edges,
        outer_grads,
        count,
        momentum,
        stats,
        direction,
        partials,
        BAND,
        BLOCK,
        GRAFT,
        CHAINED,
        PIECES,
        STATE_STORAGE,
        DIRECTION_STORAGE,
        COUNTED,
    )
