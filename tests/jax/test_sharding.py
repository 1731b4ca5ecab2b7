"""Sharded leaves are stepped as whole ones, on any number of devices: state bit for bit, directions to rounding."""

from __future__ import annotations

from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from sonew.config import Chain
from sonew.errors import InvalidConfigError, UnsupportedProblemError
from sonew.jax import scale_by_sonew, sonew, state_shardings
from tests.jax.meshes import (
    QUICK,
    WARNED,
    Layout,
    assert_laid_out,
    collectives,
    compare,
    compiled,
    gradients,
    make_mesh,
    run,
    run_whole,
    shardings_of,
)
from tests.tolerances import assert_close

ROWS: Final = P("x")


def rows(devices: int, spec: P = ROWS) -> Layout:
    """Leaves cut along their first dimension: several rows a device; one element, with halos from several; a whole one, an empty one."""
    return {
        "matrix": ((2 * devices, 5), spec),
        "single": ((devices,), spec),
        "whole": ((2, 3), P()),
        "empty": ((0, 3), spec),
    }


@pytest.mark.parametrize(
    ("devices", "band", "chain", "graft"),
    [
        (1, 1, "tensor", "adam"),
        (2, 2, 3, "rmsprop"),
        pytest.param(3, 4, "tensor", "sgd", marks=pytest.mark.full),  # XLA takes seconds for wide bands
        (3, 1, "row", "adam_uncorrected"),
        (4, 0, "tensor", "sgd"),
        (4, 2, 7, "none"),
        (8, 1, "tensor", "none"),
    ],
)
def test_rows_step_like_whole_leaves(devices: int, band: int, chain: Chain, graft: Any) -> None:
    layout = rows(devices)
    shardings = shardings_of(make_mesh(devices), layout)
    settings: dict[str, Any] = {"band": band, "chain": chain, "graft": graft, "eps": 1e-6}
    grads = gradients(layout, band=band)
    found = run(scale_by_sonew(shardings=shardings, **settings), grads, shardings)
    compare(found, run_whole(layout, **settings))
    assert_laid_out(found, shardings)


@pytest.mark.parametrize(
    ("sizes", "shape", "spec", "band", "chain"),
    [
        ((2, 4), (16, 3), P(("x", "y")), 2, "tensor"),
        ((2, 2), (8, 3), P(("y", "x")), 1, "tensor"),  # y is the major one
        ((2, 4), (8, 3), P("y"), 2, "tensor"),  # replicated along x: HSDP
        ((4, 2), (4, 6), P("x", "y"), 2, "tensor"),  # a row a device of x: still runs
        ((4,), (1, 12), P(None, "x"), 2, "tensor"),
        ((8,), (16,), P("x"), 8, "tensor"),  # a halo comes from four on either side
        ((4,), (6, 16), P(None, "x"), 2, 4),  # no chain crosses a border
        ((2, 2), (4, 8), P("x", "y"), 1, 2),
        ((4,), (3, 8, 5), P(None, "x"), 2, "row"),
        ((2, 2), (4, 6), P("x", "y"), 0, "tensor"),  # nothing is coupled
    ],
    ids=str,
)
def test_other_cuts_that_are_exact(sizes: tuple[int, ...], shape: tuple[int, ...], spec: P, band: int, chain: Chain) -> None:
    layout: Layout = {"leaf": (shape, spec)}
    shardings = shardings_of(make_mesh(*sizes), layout)
    settings: dict[str, Any] = {"band": band, "chain": chain, "eps": 1e-6}
    grads = gradients(layout, band=band)
    found = run(scale_by_sonew(shardings=shardings, **settings), grads, shardings)
    compare(found, run_whole(layout, **settings))
    assert_laid_out(found, shardings)


@pytest.mark.parametrize(("sizes", "spec"), [((8,), P("x")), ((2, 4), P(("x", "y")))], ids=str)
def test_explicit_types_tell(sizes: tuple[int, ...], spec: P) -> None:
    """Without the argument; the types of what comes out are the parameters'."""
    mesh = make_mesh(*sizes, explicit=True)
    settings: dict[str, Any] = {"band": 1, "eps": 1e-6}
    layout = rows(8, spec)
    shardings, grads, tx = shardings_of(mesh, layout), gradients(layout, band=1), scale_by_sonew(**settings)
    with jax.set_mesh(mesh):
        found = run(tx, grads, shardings)
        assert_laid_out(found, shardings)
        for name, (shape, cut) in layout.items():
            whole = (*cut, *(None,) * (len(shape) - len(cut)))
            assert jax.typeof(found[0][name]).sharding.spec == P(*whole)
            assert jax.typeof(found[1].stats[name]).sharding.spec == P(None, *whole)
        program = compiled(jax.jit(tx.update).lower(jax.device_put(grads[0], shardings), found[1]))
    assert {name for name, _ in collectives(program)} == {"collective-permute", "all-reduce"}
    compare(found, run_whole(layout, **settings))


@pytest.mark.parametrize("explicit", [False, True])
def test_eager_steps(explicit: bool) -> None:
    """Outside of jit. There a multiply-add may be fused, so momentum is compared to rounding."""
    layout: Layout = {"matrix": ((8, 5), P("x"))}
    shardings, grads = shardings_of(make_mesh(4, explicit=explicit), layout), gradients(layout, band=1, steps=3)
    found = run(scale_by_sonew(eps=1e-2, shardings=None if explicit else shardings), grads, shardings, jit=False)
    assert_laid_out(found, shardings)
    expected = run_whole(layout, band=1, eps=1e-2, steps=3)
    assert_close(found[0]["matrix"], expected[0]["matrix"], "float32")
    assert_close(found[1].momentum["matrix"], expected[1].momentum["matrix"], "float32 averages")
    assert_close(found[1].stats["matrix"], expected[1].stats["matrix"], "float32 averages")


@pytest.mark.parametrize("explicit", [False, True])
def test_a_scan_over_steps(explicit: bool) -> None:
    layout: Layout = {"a": ((8, 5), P("x")), "b": ((4,), P("x"))}
    mesh = make_mesh(4, explicit=explicit)
    shardings, grads = shardings_of(mesh, layout), gradients(layout, band=2)
    tx = scale_by_sonew(band=2, eps=1e-6, shardings=None if explicit else shardings)

    def steps(state: Any, stacked: Any) -> Any:
        return jax.lax.scan(lambda state, grad: tx.update(grad, state)[::-1], state, stacked)

    train = jax.jit(steps, compiler_options=QUICK)

    stacks = {name: np.stack([grad[name] for grad in grads]) for name in layout}
    with jax.set_mesh(mesh):
        stacked = jax.device_put(stacks, {name: NamedSharding(mesh, P(None, *sharding.spec)) for name, sharding in shardings.items()})
        state, directions = train(tx.init(jax.device_put(grads[0], shardings)), stacked)
        last = {name: np.asarray(directions[name])[-1] for name in layout}
    compare((last, state), run_whole(layout, band=2, eps=1e-6))
    assert state.stats["a"].sharding.is_equivalent_to(NamedSharding(mesh, P(None, "x")), 3)


def test_numbers_of_the_program() -> None:
    """optax.inject_hyperparams hands decays and damping to the devices."""
    layout: Layout = {"a": ((8, 5), P("x")), "b": ((4,), P("x"))}
    shardings, grads = shardings_of(make_mesh(4), layout), gradients(layout, band=1)
    inject = optax.inject_hyperparams(scale_by_sonew, static_args=("band", "seed"))
    settings: dict[str, Any] = {"b1": 0.8, "b2": lambda step: 0.9 + 0.001 * step, "eps": 1e-5, "gamma": 0.1, "band": 1}
    found, expected = run(inject(shardings=shardings, **settings), grads, shardings), run(inject(**settings), grads)
    compare((found[0], found[1].inner_state), (expected[0], expected[1].inner_state))


@pytest.mark.parametrize("explicit", [False, True])
def test_noise_of_bfloat16_state_knows_no_shard(explicit: bool) -> None:
    """Gradients in bfloat16 too."""
    layout = rows(4)
    mesh = make_mesh(4, explicit=explicit)
    shardings, grads = shardings_of(mesh, layout), gradients(layout, band=1, dtype="bfloat16")
    settings: dict[str, Any] = {"band": 1, "graft": "none", "state_dtype": "bfloat16", "seed": 7}
    with jax.set_mesh(mesh):
        found = run(scale_by_sonew(shardings=None if explicit else shardings, **settings), grads, shardings)
    compare(found, run_whole(layout, dtype="bfloat16", **settings), "bfloat16 store")
    assert found[1].stats["matrix"].dtype == jnp.bfloat16


def test_without_knowledge_xla_decides() -> None:
    """Neither argument nor explicit types: right, but its partitioner gathers whole leaves, and lays out the state as it likes."""
    layout: Layout = {"a": ((8, 16), P("x")), "b": ((8, 16), P(None, "x"))}
    shardings, grads, tx = shardings_of(make_mesh(4), layout), gradients(layout, band=2), scale_by_sonew(band=2, eps=1e-6)
    state = state_shardings(tx, jax.device_put(grads[0], shardings))
    with WARNED:
        found = run(tx, grads, shardings, out_shardings=(shardings, state))
    compare(found, run_whole(layout, band=2, eps=1e-6))
    assert_laid_out(found, shardings)  # since out_shardings say so
    program = compiled(jax.jit(tx.update).lower(jax.device_put(grads[0], shardings), found[1]))
    assert ("all-gather", 8 * 16) in collectives(program)


def test_only_borders_and_norms_travel() -> None:
    """A step of five leaves: one permutation to either side and one more where leaves are shorter than the band, norms of all at once."""
    band = 2
    layout = {**rows(4), "large": ((64, 32), P("x"))}
    shardings = shardings_of(make_mesh(4), layout)
    tx = sonew(0.1, band=band, weight_decay=0.1, shardings=shardings)
    params = jax.device_put(gradients(layout, band=band, steps=1)[0], shardings)

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    program = compiled(jax.jit(step, donate_argnums=(0, 1)).lower(params, tx.init(params), params))
    sent = collectives(program)
    assert {name for name, _ in sent} == {"collective-permute", "all-reduce"}
    permuted = [size for name, size in sent if name == "collective-permute"]
    assert sorted(permuted) == sorted([(band + 3) * (2 + 1 + 2)] * 2 + [(band + 3)] * 2)  # "single" has one element a device
    assert [size for name, size in sent if name == "all-reduce"] == [2 * 3] * 2  # a maximum, a sum


@pytest.mark.parametrize(("spec", "chain"), [(P(), "tensor"), (P("x"), "row")])
def test_what_needs_no_neighbour_sends_nothing(spec: P, chain: Chain) -> None:
    """Replicated leaves, and row chains where every row is whole; there without grafting, which sums norms."""
    sharding = NamedSharding(make_mesh(4), spec)
    tx = scale_by_sonew(band=2, chain=chain, graft="none" if spec else "adam", shardings=sharding)
    grad = jax.device_put(np.ones((8, 4), np.float32), sharding)
    program = compiled(jax.jit(tx.update).lower(grad, tx.init(grad)))
    assert collectives(program) == []


def test_init_is_laid_out_like_the_parameters() -> None:
    """Eager, jitted with the argument, jitted with out_shardings, as shapes; and explicit types through eval_shape."""
    layout: Layout = {"a": ((8, 4), P("x")), "b": ((3,), P())}
    shardings = shardings_of(make_mesh(4), layout)
    params = jax.device_put(gradients(layout, band=1, steps=1)[0], shardings)
    plain, told = scale_by_sonew(), scale_by_sonew(shardings=shardings)
    wanted = state_shardings(plain, params)
    with WARNED:
        untold = plain.init(params)
    for state in (untold, told.init(params), jax.jit(told.init)(params), jax.jit(plain.init, out_shardings=wanted)(params)):
        assert_laid_out((state.momentum, state), shardings)
    shapes = jax.eval_shape(told.init, params)
    assert (shapes.stats["a"].shape, shapes.momentum["a"].shape, shapes.count.dtype) == ((2, 8, 4), (8, 4), jnp.int32)
    mesh = make_mesh(4, explicit=True)
    with jax.set_mesh(mesh):
        params = jax.device_put(params, shardings_of(mesh, layout))
        assert_laid_out((params, plain.init(params)), shardings_of(mesh, layout))
        assert_laid_out((params, jax.jit(plain.init)(params)), shardings_of(mesh, layout))
        shapes = jax.eval_shape(plain.init, params)
        assert (shapes.stats["a"].sharding.spec, shapes.momentum["a"].sharding.spec) == (P(None, "x", None), P("x", None))


def wrapped(shardings: Any) -> dict[str, Any]:
    """Transformations around sonew."""
    parts = {"sonew": sonew(0.1, shardings=shardings), "adam": optax.adam(0.1)}
    return {
        "alone": scale_by_sonew(band=2, shardings=shardings),
        "schedule": sonew(optax.linear_schedule(0.1, 0.0, 10), weight_decay=0.1, shardings=shardings),
        "chain": optax.chain(optax.clip_by_global_norm(1.0), sonew(0.1, shardings=shardings), optax.ema(0.9)),
        "masked": optax.masked(sonew(0.1, shardings=shardings), {"a": True, "b": False, "c": True}),
        "inject_hyperparams": optax.inject_hyperparams(sonew)(learning_rate=0.1, shardings=shardings),
        "MultiSteps": optax.MultiSteps(sonew(0.1, shardings=shardings), 2),
        "partition": optax.partition(parts, {"a": "sonew", "b": "adam", "c": "sonew"}),
        "apply_if_finite": optax.apply_if_finite(sonew(0.1, shardings=shardings), 3),
    }


@pytest.mark.parametrize("name", wrapped(None))
@pytest.mark.parametrize("told", [False, True])
def test_state_shardings_of_wrappers(name: str, told: bool) -> None:
    """They fit the state that init gives, are what jit makes of it, and every array of a parameter's shape is cut like it."""
    layout: Layout = {"a": ((8, 4), P("x")), "b": ((3, 5), P()), "c": ((2, 12), P(None, "x"))}
    mesh = make_mesh(4)
    shardings = shardings_of(mesh, layout)
    tx = wrapped(shardings if told else None)[name]
    params = {leaf: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=shardings[leaf]) for leaf, (shape, _) in layout.items()}
    found = state_shardings(tx, params)
    state = jax.jit(lambda: tx.init({leaf: jnp.zeros(shape) for leaf, (shape, _) in layout.items()}), out_shardings=found)()
    expected = {(8, 4): P("x"), (2, 12): P(None, "x"), (2, 8, 4): P(None, "x"), (3, 8, 4): P(None, "x"), (2, 2, 12): P(None, None, "x")}

    def check(array: Any, sharding: Any) -> None:
        wanted = NamedSharding(mesh, expected.get(array.shape, P()))
        if array.shape != (3, 2, 12):
            assert array.sharding.is_equivalent_to(wanted, array.ndim)
        assert array.sharding == sharding

    jax.tree.map(check, state, found)
    assert any(array.shape == (2 + (name == "alone"), 8, 4) for array in jax.tree.leaves(state))


def test_a_masked_step_with_shardings_of_all_leaves() -> None:
    layout: Layout = {"a": ((8, 4), P("x")), "b": ((3,), P())}
    shardings, grads = shardings_of(make_mesh(4), layout), gradients(layout, band=1)
    mask = {"a": True, "b": False}
    found = run(optax.masked(scale_by_sonew(eps=1e-6, shardings=shardings), mask), grads, shardings)
    expected = run(optax.masked(scale_by_sonew(eps=1e-6), mask), grads)
    compare((found[0], found[1].inner_state), (expected[0], expected[1].inner_state))


def test_state_shardings_of_one_device_and_of_none() -> None:
    one = jax.tree.leaves(state_shardings(sonew(0.1), {"a": jnp.ones(3)}))
    assert all(isinstance(sharding, SingleDeviceSharding) for sharding in one)
    assert jax.tree.leaves(state_shardings(optax.identity(), {})) == []
    with pytest.raises(InvalidConfigError, match=r"\['a'\] has no sharding"):
        state_shardings(sonew(0.1), {"a": np.ones(3)})


@pytest.mark.parametrize(
    ("shape", "spec", "settings", "words"),
    [
        ((6, 4), P("x"), {}, ["dimension 0 of shape (6, 4)", "pad it"]),
        ((8, 6), P(None, ("x", "y")), {"chain": "row"}, ["shape (8, 6)", "into 8 parts"]),
        ((8, 8), P(None, "x"), {}, ["shape (8, 8)", "divides 2", "cuts the first dimension alone"]),
        ((8, 8), P("x", "y"), {"chain": "row"}, ["shape (8, 8)", "chain='row'", "divides 4", "band=0"]),
        ((8, 8, 2), P(None, "x"), {}, ['Use chain="row"']),
        ((8, 8, 2), P(None, "x"), {"chain": "row", "state_dtype": "bfloat16"}, ["shape (8, 8, 2)", "float32 state"]),
    ],
    ids=str,
)
def test_cuts_that_cannot_be_exact_are_refused(shape: tuple[int, ...], spec: P, settings: Any, words: list[str]) -> None:
    tx = scale_by_sonew(shardings=NamedSharding(AbstractMesh((4, 2), ("x", "y"), axis_types=(AxisType.Auto,) * 2), spec), **settings)
    state = scale_by_sonew(**settings).init(jnp.zeros(shape))
    with pytest.raises(UnsupportedProblemError) as caught:
        tx.update(jnp.zeros(shape), state)
    assert all(word in str(caught.value) for word in (*words, str(spec)))


def test_explicit_types_that_cannot_be_exact_are_refused() -> None:
    mesh = make_mesh(4, explicit=True)
    grad = jax.device_put(np.ones((8, 8), np.float32), NamedSharding(mesh, P(None, "x")))
    with jax.set_mesh(mesh), pytest.raises(UnsupportedProblemError, match=r"shape \(8, 8\) .* several runs"):
        jax.jit(scale_by_sonew().update)(grad, scale_by_sonew().init(grad))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"a": P("x")}, ["must be a jax.sharding.NamedSharding or None", "jax.tree.map(lambda x: x.sharding, params)"]),
        ({"b": None}, ["no entry for the leaf at ['a']", "a tree like the parameters"]),
        ({"a": NamedSharding(AbstractMesh((4,), ("x",)), P(None, "x"))}, ["(8,)", "one entry per dimension"]),
    ],
)
def test_wrong_entries_are_refused(entry: Any, words: list[str]) -> None:
    state = scale_by_sonew().init({"a": jnp.zeros(8)})
    tx = scale_by_sonew(shardings=entry)
    calls: Any = (lambda: tx.init({"a": jnp.zeros(8)}), lambda: tx.update({"a": jnp.zeros(8)}, state))
    for call in calls:
        with pytest.raises(InvalidConfigError) as caught:
            call()
        assert all(word in str(caught.value) for word in words)


def test_leaves_on_one_device_or_unknown_are_whole() -> None:
    """Entries that are None, or of a single device."""
    grads = [{"a": np.ones(5, np.float32), "b": np.ones(3, np.float32)}]
    told = scale_by_sonew(shardings={"a": None, "b": jnp.ones(3).sharding})
    compare(run(told, grads), run(scale_by_sonew(), grads), "exact")
