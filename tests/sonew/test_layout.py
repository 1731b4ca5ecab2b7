"""The state's shape and size are what the documentation promises."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonew.layout import COUNT, MOMENTUM, STATS, state_layout


@given(st.lists(st.integers(0, 5), max_size=4), st.integers(0, 8), st.sampled_from(["float32", "float64"]))
def test_shapes_and_types(axes: list[int], band: int, dtype: str) -> None:
    shape = tuple(axes)
    layout = state_layout(shape, band, dtype)
    assert {name: (spec.shape, spec.dtype) for name, spec in layout.items()} == {
        MOMENTUM: (shape, dtype),
        STATS: ((band + 1, *shape), dtype),
        COUNT: ((), "int32"),
    }
    words = sum(math.prod(spec.shape) for name, spec in layout.items() if name != COUNT)
    assert words == (band + 2) * math.prod(shape)


@pytest.mark.parametrize("name", [MOMENTUM, STATS, COUNT])
def test_every_buffer_says_what_it_holds(name: str) -> None:
    assert state_layout((2,), 1)[name].meaning.strip()
