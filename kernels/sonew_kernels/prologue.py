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
    SKIP,
    STATS,
    correction,
)
from sonew_kernels.storage import storage_pointer


@triton.jit
def count_step(count_in, count_out, corrections, hyper, mask):
    """count += 1 and (1 - beta1^count, 1 - beta2^count), for a block of tensors' pointers under a mask."""
    count = tl.load(count_in, mask=mask, other=0) + 1
    tl.store(count_out, count, mask=mask)
    tl.store(corrections, correction(count, tl.load(hyper + LOG_BETA1)), mask=mask)
    tl.store(corrections + 1, correction(count, tl.load(hyper + LOG_BETA2)), mask=mask)


@triton.jit
def save_borders(momentum, stats, record, border, length, mask, BAND: tl.constexpr, POSITIONS: tl.constexpr):
    """Copy the 2 BAND elements around each border into its record (`spec.border_record`).

    All but the constants are blocks (BORDERS, 1), or scalars that serve every border; POSITIONS is a power of two >= 2 BAND.
    """
    position = tl.arange(0, POSITIONS)[None, :]
    element = border - BAND + position
    mask = mask & (position < 2 * BAND) & (element < length)
    tl.store(record + position, tl.load(momentum + element, mask=mask, other=0.0), mask=mask)
    for k in tl.static_range(BAND + 1):
        row = tl.load(stats + k * length + element, mask=mask, other=0.0)
        tl.store(record + (k + 1) * 2 * BAND + position, row, mask=mask)


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
    count = tl.load(cells + COUNT, mask=first, other=0).to(tl.pointer_type(tl.int32))
    count_step(count, count, corrections + 2 * row, hyper, first)

    if BAND > 0:
        mask = active & (index > 0)
        length = tl.load(cells + LENGTH, mask=mask, other=0)
        momentum = storage_pointer(tl.load(cells + MOMENTUM, mask=mask, other=0), STATE_STORAGE)
        stats = storage_pointer(tl.load(cells + STATS, mask=mask, other=0), STATE_STORAGE)
        record = edges + (tile + row) * ((BAND + 2) * 2 * BAND)
        border = index * TILE
        save_borders(momentum[:, None], stats[:, None], record[:, None], border[:, None], length[:, None], mask[:, None], BAND, POSITIONS)


@triton.jit
def prologue_direct(
    momentum,
    stats,
    count,
    hyper,
    count_out,
    corrections,
    edges,
    length,
    BAND: tl.constexpr,
    TILE: tl.constexpr,
    BORDERS: tl.constexpr,
    POSITIONS: tl.constexpr,
):
    """Prologue of one leaf: pointers and sizes instead of a table; `count_out` may be `count`."""
    tile = tl.program_id(0).to(tl.int64) * BORDERS + tl.arange(0, BORDERS)
    count_step(count + tile * 0, count_out + tile * 0, corrections + tile * 0, hyper, tile == 0)
    if BAND > 0:
        size = tl.full((1, 1), length, tl.int64)
        record = edges + tile * ((BAND + 2) * 2 * BAND)
        border = tile * TILE
        mask = (tile > 0) & (border < length)
        save_borders(momentum, stats, record[:, None], border[:, None], size, mask[:, None], BAND, POSITIONS)
