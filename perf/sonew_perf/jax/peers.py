"""The jitted steps of one case: SONew by either backend, and optax's AdamW. Parameters and state are donated, gradients stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sonew.dispatch import make_plan
from sonew.jax import sonew
from sonew.jax.direction import gpu_problem
from sonew_perf.entries import plan_entry
from sonew_perf.jax.request import ADAMW, SONEW, TRITON, JaxTiming, Method
from sonew_perf.steps.workloads import LR, Workload

WARM_UP_STEPS: Final = 2
FAMILIES: Final[Mapping[str, Callable[[Method], optax.GradientTransformation]]] = {
    SONEW: lambda method: sonew(LR, band=method.band, backend=method.backend),
    ADAMW: lambda _: optax.adamw(LR),
}


@dataclass(slots=True)
class Stepped:
    """A method with what it steps, ready to be timed.

    Attributes:
        step: parameters, state and gradients to parameters and state. carried: the former two; each call steps on.
        grads: the gradients.
        state_bytes: of the optimizer's state. peak_bytes: what XLA assigned to a step: arguments, results and temporaries.
    """

    step: Callable[..., Any]
    carried: tuple[Any, Any]
    grads: Any
    state_bytes: int
    peak_bytes: int

    def __call__(self) -> Any:  # noqa: ANN401  # a tree of arrays, which may still be computed
        """Take a step."""
        self.carried = self.step(*self.carried, self.grads)
        return self.carried


def leaves(workload: Workload, device: jax.Device, seed: int) -> list[jax.Array]:
    """Leaves of a workload, the same numbers for the same seed."""
    rng = np.random.default_rng(seed)
    return [jax.device_put(rng.standard_normal(shape, np.float32), device) for shape in workload.shapes]


def prepare(method: Method, workload: Workload, grads: Sequence[jax.Array], device: jax.Device) -> Stepped:
    """Compile a method's step and take its first ones.

    Raises:
        SonewError: the backend cannot run here.
        jax.errors.JaxRuntimeError: no memory.
    """
    tx = FAMILIES[method.family](method)

    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:  # noqa: ANN401  # trees
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    with jax.default_device(device):
        params = leaves(workload, device, 0)
        state = jax.tree.map(jnp.copy, tx.init(params))  # equal leaves may be one array, which cannot be donated twice
        held = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        jitted = jax.jit(step, donate_argnums=(0, 1))
        memory: Any = jitted.lower(params, state, grads).compile().memory_analysis()
        peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes - memory.alias_size_in_bytes
        made = Stepped(jitted, (params, state), grads, held, peak)
        for _ in range(WARM_UP_STEPS):
            made()
        jax.block_until_ready(made.carried)
    return made


def describe_plan(method: Method, timing: JaxTiming) -> list[dict[str, object]]:
    """How the Triton path is launched, and where that configuration comes from."""
    if method.family != SONEW or method.backend != TRITON:
        return []
    problem = gpu_problem([prod(shape) for shape in timing.workload.shapes], band=method.band)
    return [plan_entry(make_plan(problem, framework="jax", backend=method.backend))]
