"""The transformation inside optax's wrappers: each row says what the wrapper makes of the plain updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sonew.errors import InvalidConfigError
from sonew.jax import scale_by_sonew, sonew
from tests.jax.trees import Tree, assert_trees_close, avals, gradients, jit, parameters, programs, same_bits, steps_of, taken

LR: Final = 0.1
EPS: Final = 0.1  # the first steps' windows have low rank: without damping two programs share no digit of their directions
Grads = list[Tree]


PLAIN: Final = sonew(LR, eps=EPS)
STEP: Final = jit(PLAIN.update)  # one for all, so that each kind of tree is compiled once


def plain(grads: Grads) -> list[Tree]:
    return taken(STEP, PLAIN.init(grads[0]), grads)[0]


def only_w(grads: Grads) -> list[Tree]:
    return plain([{"w": grad["w"]} for grad in grads])


def masked(grads: Grads) -> list[Tree]:
    return [{"b": grad["b"], **new} for grad, new in zip(grads, only_w(grads), strict=True)]


def partitioned(grads: Grads) -> list[Tree]:
    return [{"b": jnp.zeros_like(grad["b"]), **new} for grad, new in zip(grads, only_w(grads), strict=True)]


def in_twos(grads: Grads) -> list[Tree]:
    """Mean gradients of two steps; nothing moves in the first of them."""
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *grads[:2])
    nothing = jax.tree.map(jnp.zeros_like, mean)
    return [nothing, *plain([mean]), nothing]


def joined(grads: Grads) -> list[Tree]:
    """Chains run over all leaves, one behind the other."""
    new = plain([jnp.concatenate([grad["b"], grad["w"].reshape(-1)]) for grad in grads])
    return [{"b": flat[:5], "w": flat[5:].reshape(3, 4)} for flat in new]


def scheduled(grads: Grads) -> list[Tree]:
    return [jax.tree.map(lambda u, i=i: u * (i + 1), new) for i, new in enumerate(plain(grads))]


def unscaled(grads: Grads) -> list[Tree]:
    return [jax.tree.map(lambda u: u / -LR, new) for new in plain(grads)]


def schedule(step: Any) -> Any:
    return LR * (step + 1)


WRAPPERS: Final[dict[str, tuple[Callable[[], Any], Callable[[Grads], list[Tree]]]]] = {
    "chain": (lambda: optax.chain(optax.identity(), scale_by_sonew(eps=EPS), optax.scale(-LR)), plain),
    "inject_hyperparams": (lambda: optax.inject_hyperparams(sonew)(LR, eps=EPS), plain),
    "inject_hyperparams of scale_by_sonew": (lambda: optax.inject_hyperparams(scale_by_sonew)(eps=EPS), unscaled),
    "inject_hyperparams, static": (
        lambda: optax.inject_hyperparams(sonew, static_args=("band", "seed"))(LR, eps=EPS, band=1, seed=3),
        plain,
    ),
    "inject_hyperparams, schedule": (lambda: optax.inject_hyperparams(sonew)(schedule, eps=EPS), scheduled),
    "schedule": (lambda: sonew(schedule, eps=EPS), scheduled),
    "masked": (lambda: optax.masked(PLAIN, {"b": False, "w": True}), masked),
    "partition": (
        lambda: optax.partition({"sonew": PLAIN, "frozen": optax.set_to_zero()}, {"b": "frozen", "w": "sonew"}),
        partitioned,
    ),
    "MultiSteps": (lambda: optax.MultiSteps(PLAIN, 2), in_twos),
    "apply_if_finite": (lambda: optax.apply_if_finite(PLAIN, 2), plain),
    "flatten": (lambda: optax.flatten(PLAIN), joined),
    "with_extra_args_support": (lambda: optax.with_extra_args_support(sonew(LR, eps=EPS)), plain),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers(name: str) -> None:
    """The expected updates, in the gradients' types; the state keeps its shapes and types, so nothing compiles twice."""
    make, expected = WRAPPERS[name]
    tx, grads, params = make(), gradients(), parameters()
    update = jit(tx.update)
    state = tx.init(params)
    updates, new = taken(update, state, grads, params)
    for got, want in zip(updates, expected(grads), strict=True):
        assert_trees_close(got, want, "float32")
        assert avals(got) == avals(grads[0])
    assert avals(new) == avals(state)
    assert programs(update) == 1


def test_injected_numbers_change_the_step_and_nothing_is_compiled() -> None:
    """Each number that is injected is the one that is used, from the step on in which it was written."""
    tx, (first, second), params = optax.inject_hyperparams(sonew)(LR, eps=EPS), gradients(2), parameters()
    update = jit(tx.update)
    _, state = update(first, tx.init(params), params)
    expected = jit(lambda numbers: sonew(**numbers).update(second, state.inner_state, params)[0])
    numbers = {"learning_rate": LR, "b1": 0.9, "b2": 0.99, "eps": EPS, "eps_rel": 0.0, "weight_decay": 0.0}
    before, _ = update(second, state, params)
    for name, value in {"learning_rate": 0.3, "b1": 0.5, "b2": 0.9, "eps": 0.3, "eps_rel": 0.2, "weight_decay": 0.1}.items():
        numbers[name] = value
        changed = state._replace(hyperparams={**state.hyperparams, **{key: jnp.float32(number) for key, number in numbers.items()}})
        got, _ = update(second, changed, params)
        assert_trees_close(got, expected(numbers), "float32")
        assert not same_bits(got, before), name
        before = got
    assert programs(update) == 1


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("band", 2, ("band", "seed")),
        ("seed", 2, ("band", "seed")),
        ("chain", 4, ("band", "seed", "chain")),
        ("compute_capability", 90, ("band", "seed", "compute_capability")),
    ],
)
def test_what_is_compiled_cannot_be_injected(name: str, value: int, named: tuple[str, ...]) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        optax.inject_hyperparams(sonew)(LR, **{name: value}).init(parameters())
    assert f"{name} is an array" in str(caught.value)
    assert f"static_args={named}" in str(caught.value)


def test_injected_decays_of_bfloat16_state_need_gamma() -> None:
    """Its default is a number that follows from b2 (and the band), which is not known when the program is made."""
    with pytest.raises(InvalidConfigError, match=r"gamma=None.*Pass gamma=0\.028"):
        optax.inject_hyperparams(sonew)(LR, state_dtype="bfloat16").init(parameters())


def test_steps_with_broken_gradients_leave_the_state_alone() -> None:
    tx, (first, second) = optax.apply_if_finite(PLAIN, 5), gradients(2)
    update = jit(tx.update)
    _, state = update(first, tx.init(first))
    nothing, skipped = update({**second, "b": second["b"].at[2].set(jnp.nan)}, state)
    assert not any(np.any(u) for u in jax.tree.leaves(nothing))
    assert same_bits(skipped.inner_state, state.inner_state)
    assert same_bits(update(second, skipped)[0], update(second, state)[0])


def test_a_nan_shows_where_nobody_skips_it() -> None:
    grads = gradients(1)[0]
    broken = {**grads, "b": grads["b"].at[1].set(jnp.nan)}
    state = STEP(broken, PLAIN.init(grads))[1][0]
    assert np.isnan(state.momentum["b"]).tolist() == [False, True, False, False, False]


def test_decay_is_decoupled_and_masked() -> None:
    params, grads = parameters(), gradients()
    tx = sonew(LR, eps=EPS, weight_decay=0.5, mask={"b": False, "w": True})
    updates, _ = steps_of(tx, grads, params)
    for got, without in zip(updates, plain(grads), strict=True):
        assert_trees_close(got, {"b": without["b"], "w": without["w"] - LR * 0.5 * params["w"]}, "float32")
    by_function = sonew(LR, eps=EPS, weight_decay=0.5, mask=lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree))
    assert same_bits(steps_of(by_function, grads, params)[0], updates)


def test_decay_needs_parameters_and_no_decay_needs_none() -> None:
    (grads,) = gradients(1)
    tx = sonew(LR, eps=EPS, weight_decay=0.5)
    with pytest.raises(ValueError, match="params"):
        tx.update(grads, tx.init(grads))
    assert same_bits(STEP(grads, PLAIN.init(grads), parameters())[0], STEP(grads, PLAIN.init(grads))[0])


def test_a_training_step() -> None:
    """What users write: the loss of a quadratic falls, parameters keep their types."""
    tx, params = sonew(0.1, eps=EPS), parameters(jnp.bfloat16)
    target = jax.tree.map(lambda x: x + 1, params)

    def loss(tree: Tree) -> jax.Array:
        return sum((jnp.sum((tree[name] - target[name]).astype(jnp.float32) ** 2) for name in tree), jnp.zeros(()))

    @jit
    def step(params: Tree, state: Any) -> tuple[Tree, Any, jax.Array]:
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params, value=value)  # extra arguments are for others
        return optax.apply_updates(params, updates), state, value

    state, losses = tx.init(params), []
    before = avals((params, state))
    for _ in range(12):
        params, state, value = step(params, state)
        losses.append(float(value))
    assert losses[-1] < 0.5 * losses[0]
    assert avals((params, state)) == before
    assert programs(step) == 1
