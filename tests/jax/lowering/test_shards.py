"""Sharded steps on GPUs that are not here: kernels inside shard_map."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

from sonew.jax import sonew
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
