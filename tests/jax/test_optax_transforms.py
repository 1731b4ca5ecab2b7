"""The update under jit, scan, cond, vmap and differentiation."""

from __future__ import annotations

from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from sonew.jax import scale_by_sonew, sonew
from tests.jax.trees import Tree, assert_trees_close, gradients, jit, parameters, same_bits, taken
from tests.tolerances import assert_close

TX: Final = scale_by_sonew(band=2, eps=0.1)
STEP: Final = jit(TX.update)
STACKED: Final = jax.tree.map(lambda *leaves: jnp.stack(leaves), *gradients())


def step_by_step() -> tuple[Tree, Any]:
    """(updates of all steps stacked, the last state)."""
    updates, state = taken(STEP, TX.init(parameters()), gradients())
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *updates), state


def test_donated_state_is_updated_in_place() -> None:
    """All of it is used: JAX would warn of a buffer that is not."""
    step = jit(lambda state, grad: TX.update(grad, state), donate_argnums=(0, 1))
    state = TX.init(parameters())
    for grad in gradients():
        held = (state, grad)
        updates, state = step(state, grad)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(held))
    want, last = step_by_step()
    assert_trees_close(updates, jax.tree.map(lambda leaf: leaf[-1], want), "float32")
    assert_trees_close(state, last, "float32 averages")


def test_scan() -> None:
    def body(state: Any, grad: Tree) -> tuple[Any, Tree]:
        updates, state = TX.update(grad, state)
        return state, updates

    state, updates = jit(lambda state, grads: lax.scan(body, state, grads))(TX.init(parameters()), STACKED)
    want, last = step_by_step()
    assert_trees_close(updates, want, "float32")
    assert_trees_close(state, last, "float32 averages")


def test_cond() -> None:
    """A step that is not taken leaves the state's bits alone."""

    @jit
    def step(take: Any, state: Any, grad: Tree) -> Any:
        return lax.cond(take, lambda: TX.update(grad, state), lambda: (jax.tree.map(jnp.zeros_like, grad), state))

    grad, state = gradients(1)[0], TX.init(parameters())
    assert same_bits(step(False, state, grad)[1], state)
    for got, want in zip(step(True, state, grad), STEP(grad, state), strict=True):
        assert_trees_close(got, want, "float32")


def test_vmap_over_an_ensemble() -> None:
    """Members as the loop steps them, with states of their own; and with one state for all."""
    members = jax.tree.map(lambda leaf: jnp.stack((leaf, -2 * leaf)), gradients(1)[0])
    states = [TX.init(parameters()), step_by_step()[1]]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    made = jit(jax.vmap(TX.update))(members, together)
    for i, state in enumerate(states):
        want = STEP(jax.tree.map(lambda leaf, i=i: leaf[i], members), state)
        assert_trees_close(jax.tree.map(lambda leaf, i=i: leaf[i], made), want, "float32")
    updates, _ = jit(jax.vmap(TX.update, (0, None)))(members, states[1])
    assert_trees_close(
        jax.tree.map(lambda leaf: leaf[1], updates), STEP(jax.tree.map(lambda leaf: leaf[1], members), states[1])[0], "float32"
    )


def loss_after(numbers: Any, grads: Any, **settings: Any) -> Any:
    """A function of the parameter after two steps of fixed gradients; numbers: (learning_rate, b2)."""
    tx = sonew(numbers[0], b2=numbers[1], eps=0.1, state_dtype="float64", **settings)
    param = jnp.linspace(-1.0, 1.0, grads.shape[1])
    state = tx.init(param)
    for grad in grads:
        updates, state = tx.update(grad * param, state, param)
        param = optax.apply_updates(param, updates)
    return jnp.sum(param**2)


@pytest.mark.parametrize(("graft", "band"), [("adam", 1), ("none", 2), ("sgd", 0), ("rmsprop", 0)])
def test_derivatives_of_a_step(graft: Any, band: int) -> None:
    """By settings and gradients, backward and forward, against differences; a gradient that is always 0 spoils nothing."""
    with jax.enable_x64(True):
        grads = jnp.asarray(np.random.default_rng(0).standard_normal((2, 6))).at[:, 3].set(0.0)

        def loss(numbers: Any, grads: Any) -> Any:
            return loss_after(numbers, grads, graft=graft, band=band)

        at = (jnp.array([0.1, 0.9]), grads)
        along = (jnp.array([0.3, 0.02]), jnp.ones_like(grads).at[:, 3].set(0.0))
        value, by_jvp = jit(lambda at, along: jax.jvp(loss, at, along))(at, along)
        gradient = jit(jax.grad(loss, (0, 1)))(*at)
        by_grad = sum(jnp.vdot(a, b) for a, b in zip(gradient, along, strict=True))
        run, h = jit(loss), 1e-6
        ahead, behind = (run(*(x + sign * h * d for x, d in zip(at, along, strict=True))) for sign in (1, -1))
        assert_close(by_jvp, by_grad, "float64")
        assert np.isfinite(value)
        assert all(np.isfinite(leaf).all() for leaf in gradient)
        assert np.isclose(by_grad, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-6)


def test_a_leaf_of_zeros_has_derivatives() -> None:
    grads = jnp.zeros((1, 4))
    assert not np.any(jit(jax.grad(lambda lr: jnp.sum(sonew(lr).update(grads[0], sonew(lr).init(grads[0]))[0])))(0.1))
