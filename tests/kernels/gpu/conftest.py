"""Where the tests of this folder run: on a GPU, and on the compiled CPU backend, so that their logic is proven without one."""

from __future__ import annotations

import pytest

from tests.kernels.gpu.steps import Place


@pytest.fixture(params=[pytest.param(Place("cuda", "triton"), marks=pytest.mark.gpu), Place("cpu", "cpu")], ids=lambda place: place.backend)
def place(request: pytest.FixtureRequest) -> Place:
    where: Place = request.param
    return where
