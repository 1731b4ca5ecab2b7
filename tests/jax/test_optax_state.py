"""What the transformation takes, keeps and refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sonew.errors import BackendUnavailableError, InvalidConfigError, UnsupportedProblemError
from sonew.jax import ScaleBySonewState, scale_by_sonew, sonew
from tests.jax.trees import Tree, avals, gradients, jit, parameters, same_bits, steps_of

EPS: Final = 0.1


@pytest.mark.parametrize(("dtype", "state_dtype"), [("float32", "float32"), ("bfloat16", "float32"), ("float16", "bfloat16")])
def test_shapes_and_types(dtype: str, state_dtype: str) -> None:
    """The update has the gradients' type, the state its own, whatever the parameters' type."""
    params, grads = parameters(dtype), gradients(2, dtype)
    tx = scale_by_sonew(band=2, state_dtype=state_dtype)
    state = tx.init(params)
    assert isinstance(state, ScaleBySonewState)
    assert ScaleBySonewState._fields == ("count", "momentum", "stats")
    layout = (
        ((), "int32"),
        {"b": ((5,), state_dtype), "w": ((3, 4), state_dtype)},
        {"b": ((3, 5), state_dtype), "w": ((3, 3, 4), state_dtype)},
    )
    assert tuple(avals(state)) == layout
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state))
    updates, state = steps_of(tx, grads, params)
    assert tuple(avals(state)) == layout
    assert int(state.count) == 2
    assert avals(updates[-1]) == avals(grads[-1])
    assert same_bits(optax.tree.get(sonew(1e-3).init(params), "stats"), scale_by_sonew().init(params).stats)


def test_float64_with_x64_and_not_without() -> None:
    tx = scale_by_sonew(state_dtype="float64")
    with pytest.raises(InvalidConfigError, match="jax_enable_x64"):
        tx.init(parameters())
    with jax.enable_x64(True):
        updates, state = steps_of(tx, gradients(1, np.float64))
        assert {leaf.dtype for leaf in jax.tree.leaves((updates, state.momentum, state.stats))} == {jnp.dtype("float64")}


def test_types_may_be_given_as_types() -> None:
    assert same_bits(scale_by_sonew(state_dtype=jnp.bfloat16).init(parameters()), scale_by_sonew(state_dtype="bfloat16").init(parameters()))


class Pair(NamedTuple):
    left: Any
    right: Any


@jax.tree_util.register_dataclass
@dataclass
class Layer:
    kernel: Any
    bias: Any


LEAF: Final = gradients(1)[0]["b"]
ONE: Final = jit(scale_by_sonew(eps=EPS).update)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: (x, None, [x]),
        lambda x: {"a": {"b": x, "none": None}},
        lambda x: Layer(x, None),
        lambda x: Pair(Layer(x, x), ()),
        lambda x: x,
        lambda _: {},
        lambda _: None,
    ],
    ids=["tuple", "dict", "dataclass", "namedtuple", "leaf", "empty", "none"],
)
def test_trees(wrap: Callable[[Any], Tree]) -> None:
    """Every leaf of every container is stepped as it would be alone; what holds none stays as it is."""
    tx = scale_by_sonew(eps=EPS)
    tree = wrap(LEAF)
    state = tx.init(tree)
    updates, new = ONE(tree, state)
    alone, _ = ONE(LEAF, tx.init(LEAF))
    assert same_bits(updates, wrap(alone))
    assert avals(new) == avals(state)
    assert int(new.count) == 1


def test_scalars_and_empty_leaves() -> None:
    """A scalar's direction has Adam's length and its own sign; an empty leaf stays empty. numpy's arrays and Python's floats will do."""
    grads = {"scalar": np.float32(-3.0), "number": 2.0, "empty": np.zeros((0, 3), np.float32)}
    updates, state = steps_of(scale_by_sonew(band=2), [grads])
    assert np.allclose([updates[0]["scalar"], updates[0]["number"]], [-1.0, 1.0], atol=1e-6)
    assert updates[0]["empty"].shape == (0, 3)
    assert state.stats["empty"].shape == (3, 0, 3)
    assert int(state.count) == 1


def test_zero_gradients_give_zero_updates_and_count() -> None:
    zeros = jnp.zeros_like(LEAF)
    updates, state = ONE(zeros, scale_by_sonew(eps=EPS).init(zeros))
    assert not np.any(updates)
    assert not np.any(state.momentum)
    assert int(state.count) == 1


def test_init_and_update_are_pure() -> None:
    """Called twice they give the same bits, and what they were given stays as it is; also without a compiler around them."""
    tx = scale_by_sonew(eps=EPS)
    state = ONE(LEAF, tx.init(LEAF))[1]
    held = jax.tree.map(np.array, (LEAF, state))
    assert same_bits(tx.init(LEAF), tx.init(LEAF))
    first = tx.update(LEAF, state)
    assert same_bits(tx.update(LEAF, state), first)
    assert same_bits((LEAF, state), held)
    assert same_bits(jit(tx.init)(LEAF), tx.init(LEAF))
    shapes = jax.eval_shape(tx.init, jax.ShapeDtypeStruct(LEAF.shape, LEAF.dtype))
    assert avals(shapes) == avals(state)


@pytest.mark.parametrize(
    ("dtype", "kind"), [("complex64", "complex"), ("int32", "of this type"), ("bool", "of this type"), ("float8_e5m2", "of this type")]
)
def test_other_leaves_are_refused(dtype: str, kind: str) -> None:
    tx, leaf = scale_by_sonew(), {"layers": [LEAF.astype(dtype)]}
    state = tx.init({"layers": [LEAF]})
    calls: list[tuple[Any, ...]] = [(tx.init, leaf), (tx.update, leaf, state)]
    for function, *arguments in calls:
        with pytest.raises(UnsupportedProblemError) as caught:
            function(*arguments)
        for part in (kind, dtype, "['layers'][0]", "optax.masked", "optax.partition"):
            assert part in str(caught.value)


def test_gradients_that_do_not_fit_are_refused() -> None:
    """Another shape, another band, another tree."""
    tx, grads = scale_by_sonew(), gradients(1)[0]
    state = tx.init(grads)
    with pytest.raises(InvalidConfigError, match=r"\['w'\] has shape \(4, 3\), its state \(3, 4\) and \(2, 3, 4\).*Call init anew"):
        tx.update({**grads, "w": grads["w"].T}, state)
    with pytest.raises(InvalidConfigError, match=r"with band=2 they must be \(5,\) and \(3, 5\)"):
        scale_by_sonew(band=2).update(grads, state)
    with pytest.raises(ValueError, match="w"):
        tx.update({"b": grads["b"]}, state)


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ({"b1": 1.0}, ["beta1=1.0", "[0, 1)", "b1=0.9"]),
        ({"b2": -0.1}, ["beta2=-0.1", "[0, 1)", "b2=0.99"]),
        ({"eps": -1.0}, ["eps=-1.0", ">= 0", "eps=1e-3"]),
        ({"eps_rel": float("inf")}, ["eps_rel=inf", "finite", "eps_rel=1e-3"]),
        ({"gamma": np.float32(-1)}, ["gamma=-1.0", ">= 0", "gamma=1e-3"]),
        ({"weight_decay": -0.1}, ["weight_decay=-0.1", ">= 0", "weight_decay=1e-3"]),
        ({"learning_rate": -0.1}, ["lr=-0.1", ">= 0", "lr=1e-3"]),
        ({"band": -1}, ["band=-1", "an integer >= 0", "band=1"]),
        ({"band": 1.5}, ["band=1.5", "an integer >= 0", "band=1"]),
        ({"graft": "lamb"}, ["graft='lamb'", "'rmsprop'", 'graft="adam"']),
        ({"chain": 0}, ["chain=0", '"row"', 'chain="tensor"']),
        ({"state_dtype": "float16"}, ["state_dtype='float16'", "'bfloat16'", "Use 'float32'"]),
        ({"state_dtype": "half"}, ["state_dtype='half'", "'bfloat16'", "Use 'float32'"]),
        ({"seed": 2**64}, [f"seed={2**64}", "[0, 2^64)", "seed=0"]),
        ({"seed": 1.5}, ["seed=1.5", "[0, 2^64)", "seed=0"]),
        ({"compute_capability": "sm_90"}, ["compute_capability='sm_90'", "an integer", "compute_capability=90"]),
        ({"backend": "cpu"}, ["backend='cpu'", "'reference'", "'auto'"]),
        ({"tuning": "maybe"}, ["tuning='maybe'", "'pinned'", "'on'"]),
    ],
)
def test_bad_settings_are_refused(setting: dict[str, Any], parts: list[str]) -> None:
    """With the value, what is allowed and the fix, before there is a state; numbers go by the names of the mathematics."""
    with pytest.raises(InvalidConfigError) as caught:
        sonew(**{"learning_rate": 1e-3, **setting})
    for part in parts:
        assert part in str(caught.value)


def test_an_explicit_backend_never_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """By argument or environment; compiled for a GPU that is not here, it is no program for this machine."""
    state = scale_by_sonew().init(LEAF)
    with pytest.raises(BackendUnavailableError, match=r"backend='triton'.*no GPU.*backend='auto'"):
        scale_by_sonew(backend="triton").update(LEAF, state)
    with pytest.raises(NotImplementedError, match="cpu"):
        jit(scale_by_sonew(backend="triton", compute_capability=90).update)(LEAF, state)
    monkeypatch.setenv("SONEW_BACKEND", "triton")
    with pytest.raises(BackendUnavailableError, match="no GPU"):
        scale_by_sonew().update(LEAF, state)
    assert same_bits(jit(scale_by_sonew(backend="reference", eps=EPS).update)(LEAF, state), ONE(LEAF, state))
