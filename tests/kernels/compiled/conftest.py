"""Kernels compiled to machine code without a device. TRITON_INTERPRET is read when a kernel module is imported, so it must be unset."""

from __future__ import annotations

import pytest
import triton

if triton.knobs.runtime.interpret:
    msg = "these tests need Triton's compiler: run pytest tests/kernels/compiled without TRITON_INTERPRET, in a process of their own"
    raise pytest.UsageError(msg)
