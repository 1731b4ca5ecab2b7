"""Training one run in JAX: what its process does.

Run as `python -m sonew_perf.training.jax.loop REQUEST VALUES`: the request as JSON text, the data as an .npy file. It prints a JSON line
per mean loss, {"mean": NUMBER, "loss": LOSS or null}, and at the end {"result": ...}.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sonew_perf.jax.timing import PLATFORMS
from sonew_perf.training.jax import autoencoder
from sonew_perf.training.jax.methods import BUILD, describe_plans, state_bytes
from sonew_perf.training.jax.request import Training
from sonew_perf.training.runs import Run
from sonew_perf.training.schedule import RULES
from sonew_perf.training.tasks.autoencoder import weights
from sonew_perf.training.tasks.data import batches, steps_per_epoch

Told = Callable[[int, float], None]


class Programs:
    """The two programs of a step, compiled before the first one.

    Attributes:
        params, state: what is trained, and the optimizer's state; each step gives its arrays to the next.
    """

    def __init__(self, run: Run, values: jax.Array) -> None:
        tx = BUILD[run.method](run.settings, run.precision)
        dtype = jnp.bfloat16 if run.precision == "bf16" else jnp.float32
        self._values = values
        self.params = [jnp.asarray(drawn, dtype) for drawn in weights(run.seed)]
        self.state = jax.tree.map(jnp.copy, tx.init(self.params))  # equal leaves may be one array, which cannot be donated twice

        def slope(params: Any, values: Any, chosen: Any) -> Any:
            return jax.value_and_grad(autoencoder.loss)(params, values[chosen])

        def update(params: Any, state: Any, grads: Any, rate: Any) -> Any:
            updates, state = tx.update(grads, state, params)
            return jax.tree.map(lambda param, by: (param + rate * by).astype(param.dtype), params, updates), state

        chosen = jax.ShapeDtypeStruct((run.batch,), jnp.int32)
        rate = jax.ShapeDtypeStruct((), jnp.float32)
        self._slope = jax.jit(slope).lower(self.params, values, chosen).compile()
        self._update = jax.jit(update, donate_argnums=(0, 1)).lower(self.params, self.state, self.params, rate).compile()

    def slope(self, chosen: np.ndarray) -> Any:
        loss, grads = self._slope(self.params, self._values, jnp.asarray(chosen, jnp.int32))
        return loss, jax.block_until_ready(grads)

    def update(self, grads: Any, rate: float) -> None:
        self.params, self.state = jax.block_until_ready(self._update(self.params, self.state, grads, jnp.float32(rate)))


def train(asked: Training, values: np.ndarray, told: Told) -> dict[str, Any]:
    run = asked.run
    device = jax.devices(PLATFORMS[asked.device])[0]
    with jax.default_device(device):
        on_device = jax.device_put(values, device)
        programs = Programs(run, on_device)
        per_epoch, rate = steps_per_epoch(len(values), run.batch), RULES[run.lr_rule]
        means: list[float] = []
        window: list[Any] = []
        steps, inside = [], []
        for step, chosen in enumerate(batches(len(values), run.batch, run.steps, run.seed)):
            start = time.perf_counter()
            loss, grads = programs.slope(chosen)
            middle = time.perf_counter()
            programs.update(grads, run.settings.lr * rate(step, run.schedule_steps, per_epoch))
            end = time.perf_counter()
            steps.append(end - start)
            inside.append(end - middle)
            window.append(loss)
            if len(window) == asked.every or step == run.steps - 1:
                means.append(float(np.mean(jax.device_get(window))))
                window.clear()
                told(len(means) - 1, means[-1])
                if not math.isfinite(means[-1]):
                    break
        expected = -(-run.steps // asked.every)
        whole = len(means) == expected and math.isfinite(means[-1])
        result = autoencoder.evaluate(programs.params, on_device) if whole else math.nan
    return {
        "loss": result if math.isfinite(result) else None,
        "losses": [mean if math.isfinite(mean) else None for mean in means] + [None] * (expected - len(means)),
        "losses_every": asked.every,
        "wall_s": round(sum(steps), 4),
        "optimizer_s": round(sum(inside), 4),
        "step_s": round(statistics.median(steps), 6),
        "optimizer_step_s": round(statistics.median(inside), 6),
        "state_bytes": state_bytes(programs.state),
        "fallback": None,
        "plans": describe_plans(run, asked.device),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def say(line: dict[str, Any]) -> None:
    """Print a line for the process that asked."""
    print(json.dumps(line, allow_nan=False), flush=True)


def main(request: str, values: str) -> None:
    """Answer one request."""

    def told(mean: int, loss: float) -> None:
        say({"mean": mean, "loss": loss if math.isfinite(loss) else None})

    say({"result": train(Training.from_json(request), np.load(values, allow_pickle=False), told)})


if __name__ == "__main__":
    main(*sys.argv[1:])
