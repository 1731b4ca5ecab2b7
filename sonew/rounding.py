"""Stochastic rounding to bfloat16: the formula of the noise, said once. Every backend holds the same bits.

A value between two bfloat16 neighbours goes up with the probability of its place between them: 16 random bits are added below
the digits that stay, and the rest is cut. So the stored value is right in the mean, and a small change is not lost for good.

The bits depend on (seed, count, tensor, row, global element index) alone, on no tile, shard, thread or order. Rows: 0 is the
momentum, k + 1 is row k of the statistics, `PARAM_ROW` the parameter. One 32-bit hash serves two rows: row 2 j takes the
low half of hash j, row 2 j + 1 the high half.

Functions take int32 arrays of numpy, torch or jax.numpy, whose products wrap. The mixing steps are those of C. Wellons'
"lowbias32" with the constants found by T. I. Born (github.com/skeeto/hash-prospector, public domain).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

Array = Any  # an array of the namespace in use; the three namespaces share no static type

MULTIPLIERS: Final = (0x21F0AAAD, 0x735A2D97)
STRIDE: Final = 0x1E3779B1  # spreads small integers over all bits before they are mixed
PARAM_ROW: Final = 254


def _shift(x: Array, by: int) -> Array:
    """Logical shift right of int32."""
    return (x >> by) & ((1 << (32 - by)) - 1)


def mix(x: Array) -> Array:
    """A bijection of 32 bits without visible structure."""
    x = (x ^ _shift(x, 16)) * MULTIPLIERS[0]
    x = (x ^ _shift(x, 15)) * MULTIPLIERS[1]
    return x ^ _shift(x, 15)


def tensor_seed(seed: int, tensor: int) -> int:
    """Seed of one tensor, an int32, from the user's seed and the tensor's position in its optimizer; host arithmetic."""
    word = 0
    for part in (seed, seed >> 32, tensor):
        word = (word ^ part) + STRIDE & 0xFFFFFFFF
        word = (word ^ word >> 16) * MULTIPLIERS[0] & 0xFFFFFFFF
        word = (word ^ word >> 15) * MULTIPLIERS[1] & 0xFFFFFFFF
        word ^= word >> 15
    return word - (word >> 31 << 32)


def noise(seed: Array, count: Array, row: int, index: Array) -> Array:
    """16 random bits per element, int32 in [0, 2^16).

    Args:
        seed: of the tensor (`tensor_seed`), int32 (1,).
        count: this step's number, int32 (1,).
        row: what is rounded.
        index: the elements' positions in their tensor, int32 (n,), below 2^31. Kernels, whose positions have 64 bits, add the
            high word times STRIDE to the second key.
    """
    first = mix(seed ^ mix(count * STRIDE + row // 2))
    second = mix(first + STRIDE)
    x = index ^ first
    x = (x ^ _shift(x, 16)) * MULTIPLIERS[0] + second
    x = (x ^ _shift(x, 15)) * MULTIPLIERS[1]
    x = x ^ _shift(x, 15)
    return _shift(x, 16) if row % 2 else x & 0xFFFF


def round_to_bfloat16(xp: ModuleType, x: Array, bits: Array) -> Array:
    """float32 x (n,) rounded to values that bfloat16 holds, up or down as `bits` from `noise` say; NaN and infinities stay."""
    raised = x.view(xp.int32) + bits
    return xp.where((x != x) | (xp.abs(x) == float("inf")), x, (raised & -0x10000).view(xp.float32))  # noqa: PLR0124  # NaN
