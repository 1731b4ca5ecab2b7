"""The work behind a series: bytes that it must move and arithmetic that it must do, counted from the algorithm and not measured.

Bytes come from `sonew_kernels.traffic`, which a test holds to the addresses that the kernels touch. Arithmetic per column, band b, every
addition, multiplication, division and square root one operation, comparisons and what a kernel computes again for its tile's borders none:

    accumulate    m <- beta1 m + (1-beta1) g                                3
                  H_k <- beta2 H_k + (1-beta2) (g g_k), k = 0..b            4 (b+1)
    correct       m^ = m / c1, H^_k = H_k / c2, k = 0..b                    1 + (b+1)
    damp          A_jj = H^_0 (1+eps_rel) + eps                             2
    pivots        gamma A_qq for q = 0..b                                   b+1
    eliminate     the window's rows q = b..1, each against rows s < q:
                  q divisions, then one multiplication and one subtraction
                  for each entry of a triangle of q (q+1) / 2:              sum over q of q + q (q+1) = b (b+1) / 2 + b (b+1) (b+2) / 3
    back          psi_q = w_q0 - sum over r < q of w_qr psi_r               b (b-1)
    invert        D = 1 / last pivot                                        1
    apply         L^T m^, D times it, L times that                          2b + 1 + 2b
    norms         |u|^2, and of the graft a = m^ / (sqrt(H^_0) + 1e-8)      2 + 3 + 2

The update p <- p - lr (s u + weight_decay p) with the graft's factor s has 5. The rest of a step does not grow with the elements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sonew_kernels.spec import STORAGE_BYTES
from sonew_kernels.traffic import direction_bytes, update_bytes
from sonew_perf.records.model import Series

UPDATE_FLOPS: Final = 5
COPY_WORDS: Final = 2  # read, written
ADAMW_WORDS: Final = 7  # reads parameter, gradient and two means, writes all but the gradient
PHASES: Final = ("step", "direction", "update")


def direction_flops(band: int) -> int:
    """Operations per element of the direction phase; the module says how they are counted."""
    b = band
    accumulate = 3 + 4 * (b + 1)
    correct = 1 + (b + 1) + 2 + (b + 1)
    eliminate = b * (b + 1) // 2 + b * (b + 1) * (b + 2) // 3
    back = b * (b - 1)
    return accumulate + correct + eliminate + back + 1 + (4 * b + 1) + 7


@dataclass(frozen=True, slots=True)
class Work:
    """Fewest bytes and operations of all elements; None where they were never counted."""

    moved: int | None
    flops: int | None


NOT_COUNTED: Final = Work(None, None)


def _types(dtype: str) -> tuple[int, int] | None:
    """(bytes of parameters and gradients, bytes of the state and the direction) of "float32" or "float32, bfloat16 state"."""
    first, _, rest = dtype.partition(", ")
    state = rest.removesuffix(" state") if rest else "float32"
    sizes = STORAGE_BYTES.get(first), STORAGE_BYTES.get(state)
    return None if sizes[0] is None or sizes[1] is None else (sizes[0], sizes[1])


def work_of(series: Series) -> Work:
    """What one execution of the series must do."""
    types = _types(series.dtype)
    if types is None or (series.measure, series.unit) != ("time", "ms") or series.elements <= 0:
        return NOT_COUNTED
    param, state = types
    if series.case == "copy":
        return Work(COPY_WORDS * param * series.elements, None)
    if series.case == "AdamW fused" and series.kernel == "step":
        return Work(ADAMW_WORDS * param * series.elements, None)
    band = series.band
    if band is None or not series.case.startswith("SONew") or series.kernel not in PHASES:
        return NOT_COUNTED
    moved = flops = 0
    if series.kernel != "update":
        moved += direction_bytes(band, grad_bytes=param, state_bytes=state, direction_bytes=state)
        flops += direction_flops(band)
    if series.kernel != "direction":
        moved += update_bytes(param_bytes=param, direction_bytes=state)
        flops += UPDATE_FLOPS
    return Work(moved * series.elements, flops * series.elements)


def rate(amount: float | None, milliseconds: float | None) -> float | None:
    """10^9 of the amount per second: GB/s of bytes, GFLOP/s of operations."""
    return None if amount is None or not milliseconds else amount / milliseconds / 1e6
