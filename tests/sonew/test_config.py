"""Settings, problems and launch configurations: validated when made, with messages that help; derived sizes."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonew.config import GRAFTS, Hyper, LaunchConfig, Problem, chain_length
from sonew.errors import InvalidConfigError, SonewError


def problem(**changes: Any) -> Problem:
    """A valid problem with changes."""
    values: dict[str, Any] = {"device": "cpu", "band": 1, "total": 10, "median": 5}
    return Problem(**values | changes)


def test_defaults_are_the_documented_ones() -> None:
    assert {field.name: field.default for field in fields(Hyper)} == {
        "lr": 1e-3,
        "beta1": 0.9,
        "beta2": 0.99,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "band": 1,
        "eps_rel": 0.0,
        "gamma": 0.0,
        "graft": "adam",
        "chain": "tensor",
        "decoupled_weight_decay": True,
        "maximize": False,
        "stochastic_rounding": False,
    }


@pytest.mark.parametrize("name", ["lr", "eps", "weight_decay", "eps_rel", "gamma"])
@pytest.mark.parametrize("value", [-1e-300, float("nan"), float("inf"), "1", None, True, 1j])
def test_numbers_are_finite_and_not_negative(name: str, value: Any) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        Hyper(**{name: value})
    assert f"{name}={value!r}" in str(caught.value)
    assert ">= 0" in str(caught.value)
    assert f"{name}=1e-3" in str(caught.value)


@pytest.mark.parametrize("name", ["beta1", "beta2"])
@pytest.mark.parametrize("value", [1.0, -0.1, 1, float("nan"), None])
def test_decays_lie_below_one(name: str, value: Any) -> None:
    with pytest.raises(InvalidConfigError, match=r"\[0, 1\)") as caught:
        Hyper(**{name: value})
    assert f"{name}={value!r}" in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("band", -1), ("band", 1.5), ("band", True), ("graft", "Adam"), ("graft", 1), ("chain", 0)])
@pytest.mark.parametrize("ending", ["Use "])
def test_choices_are_named_in_the_message(name: str, value: Any, ending: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        Hyper(**{name: value})
    assert f"{name}={value!r}" in str(caught.value)
    assert ending in str(caught.value)


@pytest.mark.parametrize("value", [-3, 2.0, True, "rows", None, ("tensor",)])
def test_chain_is_a_mode_or_a_length(value: Any) -> None:
    with pytest.raises(InvalidConfigError, match=r'"tensor", "row" or an integer >= 1'):
        Hyper(chain=value)


@given(
    st.floats(0, 1e30),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 10**6),
    st.sampled_from(GRAFTS),
    st.one_of(st.sampled_from(["tensor", "row"]), st.integers(1)),
)
def test_everything_in_range_is_taken_as_given(number: float, beta: float, band: int, graft: Any, chain: Any) -> None:
    hyper = Hyper(lr=number, eps=number, gamma=number, beta1=beta, beta2=beta, band=band, graft=graft, chain=chain)
    assert (hyper.lr, hyper.eps, hyper.gamma, hyper.beta1, hyper.beta2) == (number, number, number, beta, beta)
    assert (hyper.band, hyper.graft, hyper.chain) == (band, graft, chain)
    assert hash(hyper) == hash(Hyper(**{field.name: getattr(hyper, field.name) for field in fields(Hyper)}))


def test_values_are_frozen() -> None:
    for value, name in ((Hyper(), "lr"), (problem(), "band"), (LaunchConfig(kernel="cpu"), "kernel")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, 1)


@pytest.mark.parametrize(
    ("chain", "shape", "length"),
    [
        ("tensor", (3, 4), 12),
        ("tensor", (), 1),
        ("tensor", (0, 5), 1),
        ("row", (3, 4), 4),
        ("row", (7,), 7),
        ("row", (), 1),
        ("row", (3, 0), 1),
        (5, (3, 4), 5),
        (100, (3,), 100),
    ],
)
def test_chain_length(chain: Any, shape: tuple[int, ...], length: int) -> None:
    assert chain_length(chain, shape) == length


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("param_dtype", "int8"),
        ("grad_dtype", "torch.float32"),
        ("state_dtype", None),
        ("chain", 3),
        ("band", -1),
        ("total", -1),
        ("median", 2.5),
    ],
)
def test_problems_are_checked(field: str, value: Any) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        problem(**{field: value})
    assert f"{field}={value!r}" in str(caught.value)


@pytest.mark.parametrize(("size", "bucket"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1024, 10), (1025, 11)])
def test_size_buckets_are_rounded_up_logarithms(size: int, bucket: int) -> None:
    assert problem(total=size, median=0).size_bucket == (bucket, 0)
    assert problem(total=0, median=size).size_bucket == (0, bucket)


@given(st.dictionaries(st.text(max_size=5), st.integers()))
def test_launch_configurations_do_not_depend_on_order(meta: dict[str, int]) -> None:
    forward, backward = LaunchConfig.of("cpu", meta), LaunchConfig.of("cpu", dict(reversed(list(meta.items()))))
    assert forward == backward
    assert hash(forward) == hash(backward)
    assert forward.as_dict() == meta


def test_errors_can_be_caught_by_kind() -> None:
    assert issubclass(InvalidConfigError, SonewError)
    assert issubclass(InvalidConfigError, ValueError)
