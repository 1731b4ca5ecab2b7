"""What the Triton kernels take, whichever framework launches them."""

from __future__ import annotations

from typing import Final

from sonew.config import Problem
from sonew_kernels.spec import STORAGE_BYTES, SUPPORTED_BANDS

STATE_DTYPES: Final = ("float32", "bfloat16")


def kernel_limit(problem: Problem) -> str | None:
    """Reason why no launch of the kernels can serve the problem's types and band, or None."""
    for name in ("param_dtype", "grad_dtype"):
        if getattr(problem, name) not in STORAGE_BYTES:
            return f"{name}={getattr(problem, name)} is not one of {list(STORAGE_BYTES)}"
    if problem.state_dtype not in STATE_DTYPES:
        return f"state_dtype={problem.state_dtype} is not {' or '.join(STATE_DTYPES)}"
    if problem.band not in SUPPORTED_BANDS:
        return f"band={problem.band} is not one of {list(SUPPORTED_BANDS)}"
    return None
