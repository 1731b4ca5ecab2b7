"""Orbax: the whole training state saved and restored, on the same devices and on others."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sonew.jax import sonew, state_shardings
from tests.jax.trees import Tree, assert_trees_close, jit, same_bits
from tests.strategies import history

SHAPES: Final = {"bias": (8,), "kernel": (8, 6), "scale": ()}
SPECS: Final = {"bias": PartitionSpec("x"), "kernel": PartitionSpec("x"), "scale": PartitionSpec()}
STEPS: Final = 4


def shardings_on(devices: int) -> Tree:
    mesh = jax.make_mesh((devices,), ("x",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    return {name: NamedSharding(mesh, spec) for name, spec in SPECS.items()}


def gradients(step: int) -> Tree:
    return {name: jnp.asarray(history(i, shape, band=2, steps=2 * STEPS)[step]) for i, (name, shape) in enumerate(SHAPES.items())}


@cache
def optimizer(devices: int, state_dtype: str) -> tuple[Any, Any]:
    """(transformation, compiled step)."""
    tx = sonew(
        optax.linear_schedule(0.1, 0.0, 100), band=2, eps=0.1, weight_decay=0.1, state_dtype=state_dtype, shardings=shardings_on(devices)
    )

    @jit
    def step(training: Tree, grads: Tree) -> Tree:
        updates, state = tx.update(grads, training["optimizer"], training["params"])
        return {"params": optax.apply_updates(training["params"], updates), "optimizer": state, "step": training["step"] + 1}

    return tx, step


def abstract(devices: int, state_dtype: str) -> Tree:
    """Shapes, types and places of the training state on so many devices: what a restore needs to know, without making it."""
    shardings = shardings_on(devices)
    tx, _ = optimizer(devices, state_dtype)
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=shardings[name]) for name, shape in SHAPES.items()}
    whole = NamedSharding(shardings["bias"].mesh, PartitionSpec())
    state = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(tx.init, params),
        state_shardings(tx, params),
    )
    return {"params": params, "optimizer": state, "step": jax.ShapeDtypeStruct((), jnp.int32, sharding=whole)}


def started(devices: int, state_dtype: str) -> Tree:
    shardings = shardings_on(devices)
    params = jax.device_put({name: jnp.ones(shape) for name, shape in SHAPES.items()}, shardings)
    step = jax.device_put(jnp.int32(0), NamedSharding(shardings["bias"].mesh, PartitionSpec()))
    return {"params": params, "optimizer": optimizer(devices, state_dtype)[0].init(params), "step": step}


def trained(training: Tree, devices: int, state_dtype: str, steps: range) -> Tree:
    _, step = optimizer(devices, state_dtype)
    for i in steps:
        training = step(training, jax.device_put(gradients(i), shardings_on(devices)))
    return training


@pytest.mark.parametrize("state_dtype", ["float32", "bfloat16"])
def test_a_run_that_was_stopped(state_dtype: str, tmp_path: Path) -> None:
    """On the same four devices it has the bits of one that never stopped; on two the same state, and steps within rounding."""
    saved = trained(started(4, state_dtype), 4, state_dtype, range(STEPS))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(saved))  # and nothing else: no backend, no mesh
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "four", saved)
    straight = trained(saved, 4, state_dtype, range(STEPS, 2 * STEPS))
    assert int(straight["step"]) == 2 * STEPS
    for devices in (4, 2):
        target = abstract(devices, state_dtype)
        with ocp.StandardCheckpointer() as checkpointer:
            restored = checkpointer.restore(tmp_path / "four", target)
        assert same_bits(restored, saved)
        for leaf, wanted in zip(jax.tree.leaves(restored), jax.tree.leaves(target), strict=True):
            assert leaf.sharding == wanted.sharding
        resumed = trained(restored, devices, state_dtype, range(STEPS, 2 * STEPS))
        if devices == 4:
            assert same_bits(resumed, straight)
        else:
            assert_trees_close(resumed["params"], straight["params"], "float32" if state_dtype == "float32" else "bfloat16 stochastic")
