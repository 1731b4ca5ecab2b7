"""The optimizer's state, said once: names, shapes and types. Allocation, checkpoints and kernels quote this file.

Per tensor of shape S with band b: `momentum` has shape S, `stats` has shape `(b + 1, *S)` with
`stats[k]` at flat position i holding the running mean of g[i] g[i+k] (0 where i + k is past the chain's end), and
`count` is an int32 scalar on the tensor's device, the number of steps this tensor has taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MOMENTUM: Final = "momentum"
STATS: Final = "stats"
COUNT: Final = "count"
VERSION: Final = 1  # of all that is said here, as state dicts carry it


@dataclass(frozen=True, slots=True)
class BufferSpec:
    """Shape and type name of one buffer."""

    shape: tuple[int, ...]
    dtype: str
    meaning: str


def state_layout(shape: tuple[int, ...], band: int, state_dtype: str = "float32") -> dict[str, BufferSpec]:
    """State of one tensor of the given shape: a mapping from buffer name to `BufferSpec`."""
    return {
        MOMENTUM: BufferSpec(shape, state_dtype, "running mean of the gradient"),
        STATS: BufferSpec((band + 1, *shape), state_dtype, "running mean of g[i] g[i+k], row k = 0..band"),
        COUNT: BufferSpec((), "int32", "steps this tensor has taken"),
    }
