"""Kernels under Triton's interpreter. TRITON_INTERPRET is read when a kernel module is imported, so it must be set from outside."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import triton

from tests.interpreting import patch_language_once

if not triton.knobs.runtime.interpret:
    msg = "these tests need Triton's interpreter: run TRITON_INTERPRET=1 pytest tests/kernels/interpreter, in a process of their own"
    raise pytest.UsageError(msg)

patch_language_once()


@pytest.fixture(autouse=True)
def _quiet_arithmetic() -> Iterator[None]:
    """A GPU divides by zero and overflows without a word; numpy, which the interpreter computes with, shall too."""
    with np.errstate(all="ignore"):
        yield
