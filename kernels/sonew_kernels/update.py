"""Update: p <- p - lr (u' + weight_decay p) with the grafted direction u' = (u scale) scale."""

import triton
import triton.language as tl

from sonew_kernels.band import (
    ACTIVE,
    COLUMNS,
    COUNT,
    FIRST_UPDATE_TILE,
    LENGTH,
    OFFSET,
    PARAM,
    SEED,
    SKIP,
    START,
    WEIGHT_DECAY,
)
from sonew_kernels.storage import BFLOAT16, PARAM_ROW, noise, noise_keys, storage_pointer, to_bfloat16_stochastically, to_storage

LINE: tl.constexpr = tl.constexpr(16)  # bytes of the widest access


@triton.jit
def step_elements(
    param,
    direction,
    out,
    first,
    length,
    scale,
    lr,
    decay,
    start,
    seed,
    count,
    STORAGE: tl.constexpr,
    STOCHASTIC: tl.constexpr,
    BLOCK: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Step BLOCK elements from `first` on. ALIGNED: the tile is full and every address a multiple of LINE."""
    element = first + tl.arange(0, BLOCK)
    if ALIGNED:
        p = tl.load(tl.multiple_of(param + element, LINE)).to(tl.float32)
        u = tl.load(tl.multiple_of(direction + element, LINE)).to(tl.float32)
    else:
        p = tl.load(param + element, mask=element < length, other=0.0).to(tl.float32)
        u = tl.load(direction + element, mask=element < length, other=0.0).to(tl.float32)
    grafted = (u * scale) * scale
    stepped = tl.fma(-lr, tl.fma(decay, p, grafted), p)
    if STOCHASTIC and STORAGE == BFLOAT16:
        key, second_key = noise_keys(seed, count, PARAM_ROW // 2)
        stored = to_bfloat16_stochastically(stepped, noise(key, second_key, start + element) & 0xFFFF)
    else:
        stored = to_storage(stepped, out, STORAGE)
    if ALIGNED:
        tl.store(tl.multiple_of(out + element, LINE), stored)
    else:
        tl.store(out + element, stored, mask=element < length)


@triton.jit
def update_block(
    param,
    direction,
    out,
    scale,
    rate,
    hyper,
    tile,
    length,
    start,
    seed,
    count,
    STORAGE: tl.constexpr,
    DIRECTION_STORAGE: tl.constexpr,
    STOCHASTIC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One update tile; param, direction and out are addresses in bytes, so that a hint binds the path it is proved on only."""
    first = tile * BLOCK
    p, u, to = storage_pointer(param, STORAGE), storage_pointer(direction, DIRECTION_STORAGE), storage_pointer(out, STORAGE)
    decay = tl.load(hyper + WEIGHT_DECAY)
    if (first + BLOCK <= length) & ((param | direction | out) % LINE == 0):
        step_elements(p, u, to, first, length, scale, rate, decay, start, seed, count, STORAGE, STOCHASTIC, BLOCK, True)
    else:
        step_elements(p, u, to, first, length, scale, rate, decay, start, seed, count, STORAGE, STOCHASTIC, BLOCK, False)


@triton.jit
def update_table(
    rows,
    update_tiles,
    hyper,
    lr,
    direction,
    scales,
    STORAGE: tl.constexpr,
    DIRECTION_STORAGE: tl.constexpr,
    STOCHASTIC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Update phase of a group, one update tile per program; inactive tensors are left alone. `lr` points to a float32 scalar."""
    tile = tl.program_id(0).to(tl.int64)
    row = tl.load(update_tiles + tile).to(tl.int64)
    cells = rows + row * COLUMNS
    rate = tl.load(lr)
    if (tl.load(cells + ACTIVE) != 0) & (tl.load(hyper + SKIP) == 0.0) & (rate != 0.0):  # lr = 0 keeps every bit, of NaN and -0 too
        param = tl.load(cells + PARAM)
        update_block(
            param,
            (direction + tl.load(cells + OFFSET)).to(tl.int64),
            param,
            tl.load(scales + row),
            rate,
            hyper,
            tile - tl.load(cells + FIRST_UPDATE_TILE),
            tl.load(cells + LENGTH),
            tl.load(cells + START),
            tl.load(cells + SEED),
            tl.load(tl.load(cells + COUNT).to(tl.pointer_type(tl.int32))),
            STORAGE,
            DIRECTION_STORAGE,
            STOCHASTIC,
            BLOCK,
        )
