"""Update: p <- p - lr (u' + weight_decay p) with the grafted direction u' = (u scale) scale."""

import triton
import triton.language as tl

from sonew_kernels.band import (
    ACTIVE,
    BFLOAT16,
    COLUMNS,
    FIRST_UPDATE_TILE,
    LENGTH,
    LR,
    OFFSET,
    PARAM,
    WEIGHT_DECAY,
    storage_pointer,
)

LINE: tl.constexpr = tl.constexpr(16)  # bytes of the widest access


@triton.jit
def to_storage(x, pointer, STORAGE: tl.constexpr):
    """Round float32 to the storage type, to nearest even; bfloat16 by its bits, so that every backend rounds alike."""
    if STORAGE == BFLOAT16:
        bits = x.to(tl.uint32, bitcast=True)
        rounded = bits + 0x7FFF + ((bits >> 16) & 1)
        half = tl.where(x != x, (bits >> 16) | 0x40, rounded >> 16)
        stored = half.to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        stored = x.to(pointer.dtype.element_ty)
    return stored


@triton.jit
def step_elements(param, direction, out, first, length, scale, hyper, STORAGE: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):
    """Step BLOCK elements from `first` on. ALIGNED: the tile is full and every address a multiple of LINE."""
    element = first + tl.arange(0, BLOCK)
    if ALIGNED:
        p = tl.load(tl.multiple_of(param + element, LINE)).to(tl.float32)
        u = tl.load(tl.multiple_of(direction + element, LINE))
    else:
        p = tl.load(param + element, mask=element < length, other=0.0).to(tl.float32)
        u = tl.load(direction + element, mask=element < length, other=0.0)
    grafted = (u * scale) * scale
    stepped = tl.fma(-tl.load(hyper + LR), tl.fma(tl.load(hyper + WEIGHT_DECAY), p, grafted), p)
    stored = to_storage(stepped, out, STORAGE)
    if ALIGNED:
        tl.store(tl.multiple_of(out + element, LINE), stored)
    else:
        tl.store(out + element, stored, mask=element < length)


@triton.jit
def update_block(param, direction, out, scale, hyper, tile, length, STORAGE: tl.constexpr, BLOCK: tl.constexpr):
    """One update tile; param, direction and out are addresses in bytes, so that a hint binds the path it is proved on only."""
    first = tile * BLOCK
    u = direction.to(tl.pointer_type(tl.float32))
    if (first + BLOCK <= length) & ((param | direction | out) % LINE == 0):
        step_elements(storage_pointer(param, STORAGE), u, storage_pointer(out, STORAGE), first, length, scale, hyper, STORAGE, BLOCK, True)
    else:
        step_elements(storage_pointer(param, STORAGE), u, storage_pointer(out, STORAGE), first, length, scale, hyper, STORAGE, BLOCK, False)


@triton.jit
def update_table(rows, update_tiles, hyper, direction, scales, STORAGE: tl.constexpr, BLOCK: tl.constexpr):
    """Update phase of a group, one update tile per program; inactive tensors are left alone."""
    tile = tl.program_id(0).to(tl.int64)
    row = tl.load(update_tiles + tile).to(tl.int64)
    cells = rows + row * COLUMNS
    if tl.load(cells + ACTIVE) != 0:
        param = tl.load(cells + PARAM)
        u = (direction + tl.load(cells + OFFSET)).to(tl.int64)
        index = tile - tl.load(cells + FIRST_UPDATE_TILE)
        update_block(param, u, param, tl.load(scales + row), hyper, index, tl.load(cells + LENGTH), STORAGE, BLOCK)


@triton.jit
def update_direct(param, direction, scales, hyper, param_out, length, STORAGE: tl.constexpr, BLOCK: tl.constexpr):
    """Update phase of one leaf, one update tile per program; `param_out` may be `param`."""
    tile = tl.program_id(0).to(tl.int64)
    size = tl.full((), length, tl.int64)
    update_block(param.to(tl.int64), direction.to(tl.int64), param_out.to(tl.int64), tl.load(scales), hyper, tile, size, STORAGE, BLOCK)
