"""Storage types: pointers to them, and rounding float32 to them, to nearest even or stochastically (sonew/rounding.py has the formula)."""

import triton
import triton.language as tl

from sonew_kernels.spec import Storage

BFLOAT16: tl.constexpr = tl.constexpr(int(Storage.BFLOAT16))
FLOAT16: tl.constexpr = tl.constexpr(int(Storage.FLOAT16))
PARAM_ROW: tl.constexpr = tl.constexpr(254)  # as in sonew/rounding.py


@triton.jit
def storage_pointer(address, STORAGE: tl.constexpr):
    """Pointer of the storage type at an address in bytes."""
    if STORAGE == BFLOAT16:
        pointer = address.to(tl.pointer_type(tl.bfloat16))
    elif STORAGE == FLOAT16:
        pointer = address.to(tl.pointer_type(tl.float16))
    else:
        pointer = address.to(tl.pointer_type(tl.float32))
    return pointer


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
def mix(x):
    """A bijection of uint32 without visible structure."""
    x = (x ^ (x >> 16)) * 0x21F0AAAD
    x = (x ^ (x >> 15)) * 0x735A2D97
    return x ^ (x >> 15)


@triton.jit
def noise_keys(seed, count, pair):
    """The two keys of a tensor's rows 2 pair and 2 pair + 1 in its step `count`, uint32."""
    first = mix(seed.to(tl.uint32) ^ mix(count.to(tl.uint32) * 0x1E3779B1 + pair))
    return first, mix(first + 0x1E3779B1)


@triton.jit
def noise(first, second, element):
    """32 random bits for each element (int64, its position in the tensor): the low half for the pair's even row, the high for the odd."""
    x = element.to(tl.uint32) ^ first
    x = (x ^ (x >> 16)) * 0x21F0AAAD + (second + (element >> 32).to(tl.uint32) * 0x1E3779B1)
    x = (x ^ (x >> 15)) * 0x735A2D97
    return x ^ (x >> 15)


@triton.jit
def to_bfloat16_stochastically(x, bits):
    """Round float32 up or down as 16 random bits (in uint32) say; NaN stays NaN."""
    raised = (x.to(tl.uint32, bitcast=True) + bits) >> 16
    return tl.where(x != x, 0x7FC0, raised).to(tl.uint16).to(tl.bfloat16, bitcast=True)
