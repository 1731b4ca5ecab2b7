"""Kernels compiled to machine code without a device. TRITON_INTERPRET is read when a kernel module is imported, so it must be unset."""

from __future__ import annotations

import os

import pytest
import triton

if triton.knobs.runtime.interpret:
    msg = "these tests need Triton's compiler: run pytest tests/kernels/compiled without TRITON_INTERPRET, in a process of their own"
    raise pytest.UsageError(msg)

if triton.__version__ != os.environ.get("EXPECTED_TRITON", triton.__version__):
    msg = f"triton {triton.__version__} is imported from {triton.__file__}, and EXPECTED_TRITON={os.environ['EXPECTED_TRITON']}"
    raise pytest.UsageError(msg)
