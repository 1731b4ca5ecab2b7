"""Sharded steps on GPUs that are not here: kernels inside shard_map."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

from sonew.jax import scale_by_sonew, sonew
from tests.jax.lowering.programs import Program, lower, phase
from tests.jax.meshes import Layout, make_mesh, shardings_of


def test_kernels_run_on_each_shard() -> None:
    """Cut leaves share three calls on what one device holds, whole ones three others; between devices only borders and norms travel."""
    layout: Layout = {"a": ((1024, 512), PartitionSpec("x")), "b": ((64,), PartitionSpec("x")), "c": ((16, 4), PartitionSpec())}
    shardings, band = shardings_of(make_mesh(4), layout), 1
    tx = sonew(0.1, band=band, compute_capability=90, tuning="off", shardings=shardings)
    params = {name: jax.device_put(jnp.ones(shape), shardings[name]) for name, (shape, _) in layout.items()}

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    program = Program(lower(step, params, tx.init(params), params))
    calls = program.kernel_calls
    assert sorted(map(phase, calls)) == sorted(["prologue", "direction", "roots"] * 2)
    sizes = {max(int(np.prod(operand.type.shape)) for operand in call.operands) for call in calls if phase(call) == "direction"}
    assert sizes == {(band + 1) * (1024 * 512 + 64) // 4, (band + 1) * 16 * 4}  # the stats
    kinds = [op.name for op in program.operations()]
    assert (kinds.count("stablehlo.collective_permute"), kinds.count("stablehlo.all_reduce")) == (2, 2)
    assert not {"stablehlo.all_gather", "stablehlo.all_to_all"} & set(kinds)


def test_kernels_run_in_a_shard_map_of_the_user() -> None:
    """Their results are said to differ between devices where their gradients do; on a leaf of its own and on joined ones."""
    tx = scale_by_sonew(compute_capability=90, tuning="off")
    grads = {"a": jnp.ones((4, 2**18)), "b": jnp.ones((4, 5)), "c": jnp.ones((4, 3))}
    state = tx.init(jax.tree.map(lambda x: x[0], grads))

    def update(grads: Any, state: Any) -> Any:
        made, _ = tx.update(jax.tree.map(lambda x: x[0], grads), state)
        return jax.tree.map(lambda x: x[None], made)

    step = jax.shard_map(update, mesh=make_mesh(4), in_specs=(PartitionSpec("x"), PartitionSpec()), out_specs=PartitionSpec("x"))
    calls = Program(lower(step, grads, state)).kernel_calls
    assert sorted(map(phase, calls)) == sorted(["prologue", "direction", "roots"] * 2)


def test_a_step_keeps_no_whole_copy_of_its_state() -> None:
    """Of a piece's arrays only the ends travel: nothing but the direction call makes an array as large as the statistics."""
    layout: Layout = {"a": ((4096, 512), PartitionSpec("x"))}
    shardings = shardings_of(make_mesh(4), layout)
    tx = scale_by_sonew(band=2, compute_capability=90, tuning="off", shardings=shardings)
    grads = {"a": jax.device_put(jnp.ones((4096, 512)), shardings["a"])}
    program = Program(lower(tx.update, grads, tx.init(grads)))
    large = 3 * 4096 * 512 // 4
    makers = {op.name for op in program.operations() if any(int(np.prod(result.type.shape)) >= large for result in op.results)}
    assert makers <= {"stablehlo.custom_call", "stablehlo.reshape", "stablehlo.case", "sdy.manual_computation", "func.call"}, makers
