"""The search space follows the spec and the machine."""

from __future__ import annotations

import itertools

import pytest

from sonew_autotune.space import available_cores, build_space
from sonew_kernels.spec import SPECS


@pytest.mark.parametrize(("kernel", "band"), [("cpu", 1), ("cpu", 4), ("triton", 0), ("triton", 4), ("triton", 8)])
def test_points_are_exactly_what_the_spec_accepts(kernel: str, band: int) -> None:
    spec = SPECS[kernel]
    space = build_space(kernel, band, threads=0, cores=10**6)
    names = [tunable.name for tunable in spec.tunables]
    product = [dict(zip(names, values, strict=True)) for values in itertools.product(*(tunable.values for tunable in spec.tunables))]
    expected = [config for config in product if spec.rejects(config, band) is None]
    assert sorted(map(sorted, (point.items() for point in space.points()))) == sorted(map(sorted, (config.items() for config in expected)))
    assert space.default in space
    assert space.default in space.points()
    rejected = next((config for config in product if spec.rejects(config, band) is not None), None)
    if rejected is not None:
        assert rejected not in space
        assert space.rejects(rejected) == spec.rejects(rejected, band)


@pytest.mark.parametrize(
    ("threads", "cores", "values"), [(2, 2, (0, 1)), (1, 2, (0, 2)), (4, 8, (0, 1, 2, 8)), (6, 6, (0, 1, 2, 4)), (1, 1, (0,))]
)
def test_thread_counts_that_make_sense_here(threads: int, cores: int, values: tuple[int, ...]) -> None:
    space = build_space("cpu", 1, threads=threads, cores=cores)
    assert dict(space.axes)["threads"] == values
    assert {point["threads"] for point in space.points()} == set(values)


def test_a_point_off_the_axes_is_outside() -> None:
    space = build_space("cpu", 1, threads=2, cores=2)
    assert {**space.default, "threads": 64} not in space
    assert {"segment": 65536} not in space


def test_cores_are_at_least_one() -> None:
    assert available_cores() >= 1
