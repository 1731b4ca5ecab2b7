"""Prologue: count the step, form the corrections, and save the old momentum and stats around tile borders.

The direction kernel updates momentum and stats in place, so a tile's neighbours are read from these records only.
"""

import triton
import triton.language as tl

from sonew_kernels.band import (
    ACTIVE,
    COLUMNS,
    COUNT,
    FIRST_TILE,
    LENGTH,
    LOG_BETA1,
    LOG_BETA2,
    MOMENTUM,
    OFFSET,
    SKIP,
    STATS,
    correction,
    joined_cells,
)
from sonew_kernels.storage import storage_pointer


@triton.jit
def save_corrections(count, corrections, hyper, mask):
    """(1 - beta1^count, 1 - beta2^count), for blocks of tensors' numbers and pointers under a mask, or for scalars."""
    tl.store(corrections, correction(count, tl.load(hyper + LOG_BETA1)), mask=mask)
    tl.store(corrections + 1, correction(count, tl.load(hyper + LOG_BETA2)), mask=mask)


@triton.jit
def save_borders(momentum, stats, edges, tile, row, index, length, mask, BAND: tl.constexpr, TILE: tl.constexpr, POSITIONS: tl.constexpr):
    """Copy the 2 BAND elements around each tile's left border into its record (`spec.border_record`).

    All but `edges` and the constants are blocks, a lane for each tile; `index` counts a tensor's tiles. POSITIONS is a power of
    two >= 2 BAND.
    """
    RECORD: tl.constexpr = (BAND + 2) * 2 * BAND
    position = tl.arange(0, POSITIONS)[None, :]
    border = index * TILE
    element = border[:, None] - BAND + position
    mask = mask[:, None] & (position < 2 * BAND) & (element < length[:, None])
    record = edges + (tile + row)[:, None] * RECORD
    tl.store(record + position, tl.load(momentum[:, None] + element, mask=mask, other=0.0), mask=mask)
    for k in tl.static_range(BAND + 1):
        old = tl.load(stats[:, None] + k * length[:, None] + element, mask=mask, other=0.0)
        tl.store(record + (k + 1) * 2 * BAND + position, old, mask=mask)


@triton.jit
def save_outer(outer, edges, tile, row, length, mask, BAND: tl.constexpr, TILE: tl.constexpr, POSITIONS: tl.constexpr):
    """Copy what lies beyond the two ends of pieces (`spec.outer_state`) into the outer halves of their first and end records.

    Blocks as in `save_borders`, a lane for each piece's first tile.
    """
    RECORD: tl.constexpr = (BAND + 2) * 2 * BAND
    position = tl.arange(0, POSITIONS)[None, :]
    beyond = position >= BAND
    last = tl.maximum((length + TILE - 1) // TILE, 1)
    record = edges + ((tile + row)[:, None] + tl.where(beyond, last[:, None], 0)) * RECORD
    side = outer + row[:, None] * RECORD + tl.where(beyond, RECORD // 2 - BAND, 0)
    mask = mask[:, None] & (position < 2 * BAND)
    for field in tl.static_range(BAND + 2):
        old = tl.load(side + field * BAND + position, mask=mask, other=0.0)
        tl.store(record + field * 2 * BAND + position, old, mask=mask)


@triton.jit
def prologue_table(
    rows,
    tiles,
    hyper,
    corrections,
    edges,
    tile_count,
    BAND: tl.constexpr,
    TILE: tl.constexpr,
    BORDERS: tl.constexpr,
    POSITIONS: tl.constexpr,
    STATE_STORAGE: tl.constexpr,
):
    """Prologue of a group; a program takes BORDERS consecutive tiles of the group, and each tile its left border."""
    tile = tl.program_id(0).to(tl.int64) * BORDERS + tl.arange(0, BORDERS)
    inside = tile < tl.where(tl.load(hyper + SKIP) == 0.0, tile_count, 0)
    row = tl.load(tiles + tile, mask=inside, other=0).to(tl.int64)
    cells = rows + row * COLUMNS
    active = inside & (tl.load(cells + ACTIVE, mask=inside, other=0) != 0)
    index = tile - tl.load(cells + FIRST_TILE, mask=active, other=0)

    first = active & (index == 0)
    home = tl.load(cells + COUNT, mask=first, other=0).to(tl.pointer_type(tl.int32))
    count = tl.load(home, mask=first, other=0) + 1
    tl.store(home, count, mask=first)
    save_corrections(count, corrections + 2 * row, hyper, first)

    if BAND > 0:
        mask = active & (index > 0)
        length = tl.load(cells + LENGTH, mask=mask, other=0)
        momentum = storage_pointer(tl.load(cells + MOMENTUM, mask=mask, other=0), STATE_STORAGE)
        stats = storage_pointer(tl.load(cells + STATS, mask=mask, other=0), STATE_STORAGE)
        save_borders(momentum, stats, edges, tile, row, index, length, mask, BAND, TILE, POSITIONS)


@triton.jit
def prologue_direct(
    momentum,
    stats,
    count,
    hyper,
    rows,
    tiles,
    outer_state,
    tile_count,
    corrections,
    edges,
    BAND: tl.constexpr,
    TILE: tl.constexpr,
    BORDERS: tl.constexpr,
    POSITIONS: tl.constexpr,
    PIECES: tl.constexpr,
):
    """Prologue of joined tensors (`spec.Column`); programs as in the table entry.

    Args:
        momentum, stats: the joined arrays. rows: the table, as `band.joined_cells` takes it. tiles: the tensor of each tile.
        count: one number for all tensors, already this step's; so are the two `corrections`.
        outer_state: `spec.outer_state` of each tensor, read where PIECES.
        edges: the border records, of the state's type.
    """
    if tl.program_id(0) == 0:
        save_corrections(tl.load(count), corrections, hyper, True)

    if BAND > 0:
        tile = tl.program_id(0).to(tl.int64) * BORDERS + tl.arange(0, BORDERS)
        inside = tile < tile_count
        row = tl.load(tiles + tile, mask=inside, other=0).to(tl.int64)
        cells = joined_cells(rows, row)
        index = tile - tl.load(cells + FIRST_TILE, mask=inside, other=0)
        length = tl.load(cells + LENGTH, mask=inside, other=0)
        offset = tl.load(cells + OFFSET, mask=inside, other=0)
        save_borders(
            momentum + offset,
            stats + (BAND + 1) * offset,
            edges,
            tile,
            row,
            index,
            length,
            inside & (index > 0),
            BAND,
            TILE,
            POSITIONS,
        )
        if PIECES:
            save_outer(outer_state, edges, tile, row, length, inside & (index == 0), BAND, TILE, POSITIONS)
