"""Steps in users' own programs: differentiated where sharded, inside their shard_map, outside of jit; what is refused of layouts."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from sonew.backends import xla_jax
from sonew.backends.flat_jax import LARGEST
from sonew.errors import InvalidConfigError, UnsupportedProblemError
from sonew.jax import scale_by_sonew
from tests.jax.meshes import WARNED, Layout, make_mesh, shardings_of
from tests.tolerances import assert_close


@pytest.mark.parametrize("graft", ["adam", "none"])
def test_a_sharded_step_has_the_derivative_of_the_whole_one(graft: Any) -> None:
    """And none where gradients are 0 throughout."""
    sharding = NamedSharding(make_mesh(4), P("x"))
    leaf = jnp.linspace(0.1, 1.0, 32).reshape(8, 4)
    derivatives = []
    for given in (sharding, None):
        tx = scale_by_sonew(eps=0.1, graft=graft, shardings=given)

        def cubes(grad: jax.Array, tx: Any = tx) -> jax.Array:
            return jnp.sum(tx.update(grad, tx.init(grad))[0] ** 3)

        found = jax.jit(jax.grad(cubes))
        derivatives.append(np.asarray(found(leaf)))
        assert_close(found(jnp.zeros_like(leaf)), np.zeros((8, 4)), "exact")
    assert_close(derivatives[0], derivatives[1], "float32")


@pytest.mark.parametrize("block", [4, xla_jax.BLOCK])
def test_inside_a_shard_map_of_the_user(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each device steps a leaf of its own, whole and block by block, from a state that all have in common."""
    monkeypatch.setattr(xla_jax, "BLOCK", block)
    tx, mesh = scale_by_sonew(eps=1e-3), make_mesh(4)
    grads = jnp.asarray(np.random.default_rng(0).standard_normal((4, 20)), jnp.float32)
    state = tx.init(grads[0])
    step = jax.shard_map(lambda grad, state: tx.update(grad[0], state)[0][None], mesh=mesh, in_specs=(P("x"), P()), out_specs=P("x"))
    found = jax.jit(step)(grads, state)
    for one, grad in zip(found, grads, strict=True):
        assert_close(one, np.asarray(tx.update(grad, state)[0]), "float32")


def test_steps_outside_of_jit_compile_once() -> None:
    tx = scale_by_sonew(band=2)
    grads = {"a": jnp.ones((5, 4)), "b": jnp.ones(3)}
    state = tx.init(grads)
    for _ in range(2):
        _, state = tx.update(grads, state)
    compiled: list[str] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if duration_secs >= 0 and "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        _, state = tx.update(grads, state)
        _, state = scale_by_sonew(band=2).update(grads, state)
        assert not compiled
        scale_by_sonew(band=2, eps=1e-3).update(grads, state)
        assert compiled, "nothing would be seen"
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_the_second_step_compiles_nothing() -> None:
    """Eager init puts the count on the parameters' devices too."""
    layout: Layout = {"a": ((8, 4), P("x")), "b": ((3,), P())}
    mesh = make_mesh(4)
    shardings = shardings_of(mesh, layout)
    for tx, told in (
        (scale_by_sonew(band=0, graft="none", shardings=shardings), nullcontext()),
        (scale_by_sonew(band=0, graft="none"), WARNED),
    ):
        grads = jax.device_put({name: np.ones(shape, np.float32) for name, (shape, _) in layout.items()}, shardings)
        update: Any = jax.jit(tx.update)
        with jax.set_mesh(mesh), told:
            _, state = update(grads, tx.init(grads))
            update(grads, state)
        assert update._cache_size() == 1


def test_layouts_that_say_too_little_are_refused() -> None:
    sharding = NamedSharding(make_mesh(4), P(P.UNCONSTRAINED))
    with pytest.raises(InvalidConfigError, match="every dimension must be said"):
        scale_by_sonew(shardings={"a": sharding}).init({"a": jnp.ones(8)})


def test_leaves_of_too_many_elements_are_refused() -> None:
    """Sharded ones too: positions are int32."""
    with pytest.raises(UnsupportedProblemError, match=f"more than {LARGEST:,} elements"):
        jax.eval_shape(scale_by_sonew().init, jax.ShapeDtypeStruct((2**20, 2**11), jnp.float32))
