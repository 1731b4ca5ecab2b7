"""Eight CPU devices for all tests of the JAX surface; torch stays out of their process."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(autouse=True)
def _no_torch() -> Iterator[None]:
    yield
    assert "torch" not in sys.modules
