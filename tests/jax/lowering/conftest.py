"""These tests compile kernels, and Triton loads torch where it is installed: they run in a process of their own."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_torch() -> None:
    """In place of the check that torch stays out."""
