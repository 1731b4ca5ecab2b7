"""Where the tests of this folder run: the Triton kernels on a GPU, and XLA on the CPU, so that their logic is proven without one.

They run in a process of their own: Triton loads torch where it is installed.
"""

from __future__ import annotations

import pytest

from sonew.backends.flat_jax import find_gpu
from tests.jax.gpu.places import CPU, GPU, Place


@pytest.fixture(autouse=True)
def _no_torch() -> None:
    """In place of the check that torch stays out."""


@pytest.fixture(params=[pytest.param(GPU, marks=pytest.mark.gpu), CPU], ids=lambda place: place.backend)
def place(request: pytest.FixtureRequest) -> Place:
    where: Place = request.param
    if where.platform == "gpu" and find_gpu() is None:
        pytest.skip("JAX sees no GPU on this machine")
    return where
