"""Training one run in JAX: what its process does.

Run as `python -m sonew_perf.training.jax.loop REQUEST ARRAYS`: the request as JSON text, examples and first weights as `request.save`
writes them. It prints a line of JSON per mean loss, {"mean": NUMBER, "loss": LOSS or null}, and at the end {"result": ...} or
{"failed": REASON, "refused": BOOL}.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sonew.errors import InvalidConfigError
from sonew_perf.entries import in_one_line
from sonew_perf.jax.timing import PLATFORMS
from sonew_perf.training.jax import autoencoder
from sonew_perf.training.jax.methods import BUILD, describe_plans, state_bytes
from sonew_perf.training.jax.request import Training, load
from sonew_perf.training.runs import Run
from sonew_perf.training.schedule import RULES
from sonew_perf.training.tasks.data import batches, steps_per_epoch


class Stepper:
    """A run's model and optimizer, and the two programs of a step: the gradient, and the update of parameters and state.

    Both are compiled when it is made, for these shapes: nothing compiles while steps are timed, and nothing can compile twice.

    Args:
        run: what is trained. weights: (out, in) and biases (out,), layer by layer. values: uint8 (examples, 784), on the device.

    Attributes:
        params: like the weights. state: of the optimizer. Both are donated to the next step.
    """

    def __init__(self, run: Run, weights: Sequence[np.ndarray], values: jax.Array) -> None:
        transform = BUILD[run.method](run.settings, run.precision)
        self._values = values
        self.params: Any = [jnp.asarray(one, jnp.bfloat16 if run.precision == "bf16" else jnp.float32) for one in weights]
        self.state: Any = jax.tree.map(jnp.copy, transform.init(self.params))  # equal leaves may be one array: not to be donated twice

        def slope(params: Any, values: jax.Array, chosen: jax.Array) -> tuple[jax.Array, Any]:  # noqa: ANN401  # a tree
            loss, grads = jax.value_and_grad(autoencoder.loss)(params, values[chosen])
            return loss, grads

        def update(params: Any, state: Any, grads: Any, rate: jax.Array) -> tuple[Any, Any]:  # noqa: ANN401  # trees
            moves, state = transform.update(grads, state, params)
            return jax.tree.map(lambda param, move: (param + rate * move).astype(param.dtype), params, moves), state

        chosen, rate = jax.ShapeDtypeStruct((run.batch,), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32)
        self._slope = jax.jit(slope).lower(self.params, values, chosen).compile()
        self._update = jax.jit(update, donate_argnums=(0, 1)).lower(self.params, self.state, self.params, rate).compile()

    def slope(self, chosen: np.ndarray) -> tuple[jax.Array, Any]:
        """Loss and gradients of the chosen examples, when they are there."""
        made: tuple[jax.Array, Any] = jax.block_until_ready(self._slope(self.params, self._values, jnp.asarray(chosen, jnp.int32)))
        return made

    def update(self, grads: Any, rate: float) -> None:  # noqa: ANN401  # a tree
        """Move the parameters; ends when they are there."""
        self.params, self.state = jax.block_until_ready(self._update(self.params, self.state, grads, jnp.float32(rate)))


def train(asked: Training, values: np.ndarray, weights: Sequence[np.ndarray], told: Callable[[int, float], None]) -> dict[str, Any]:
    """Train once.

    Args:
        asked: the request. values: uint8 (examples, 784). weights: (out, in) and biases (out,), layer by layer, float32.
        told: hears of each mean loss, with its number from 0.

    Returns:
        What `training.loop.train` returns, losses with all their digits. The host waits for the gradients and for the update of every
        step: `step_s` is from a step's first call to its new parameters, `optimizer_step_s` the update's part. Compilation is in neither.
    """
    run = asked.run
    with jax.default_device(jax.devices(PLATFORMS[asked.device])[0]):
        on_device = jnp.asarray(values)
        stepper = Stepper(run, weights, on_device)
        means, times = _steps(stepper, asked, len(values), told)
        expected = -(-run.steps // asked.every)
        whole = len(means) == expected and math.isfinite(means[-1])
        result = autoencoder.evaluate(stepper.params, on_device) if whole else math.nan
    return {
        "loss": _number(result),
        "losses": [_number(mean) for mean in means] + [None] * (expected - len(means)),
        "losses_every": asked.every,
        **_read(times),
        "state_bytes": state_bytes(stepper.state),
        "fallback": None,
        "plans": describe_plans(run, [one.size for one in weights], asked.device),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _steps(
    stepper: Stepper, asked: Training, examples: int, told: Callable[[int, float], None]
) -> tuple[list[float], list[tuple[float, float]]]:
    """Every step, or those until a mean loss is not finite: the mean losses, and the seconds of each gradient and update."""
    run, rate, per_epoch = asked.run, RULES[asked.run.lr_rule], steps_per_epoch(examples, asked.run.batch)
    means: list[float] = []
    window: list[jax.Array] = []
    times: list[tuple[float, float]] = []
    for step, chosen in enumerate(batches(examples, run.batch, run.steps, run.seed)):
        start = time.perf_counter()
        loss, grads = stepper.slope(chosen)
        middle = time.perf_counter()
        stepper.update(grads, run.settings.lr * rate(step, run.schedule_steps, per_epoch))
        times.append((middle - start, time.perf_counter() - middle))
        window.append(loss)
        if len(window) == asked.every or step == run.steps - 1:
            means.append(float(np.mean(jax.device_get(window))))
            window.clear()
            told(len(means) - 1, means[-1])
            if not math.isfinite(means[-1]):
                break
    return means, times


def _read(times: list[tuple[float, float]]) -> dict[str, float]:
    """As `clock.StepClock.read`, which is torch's."""
    steps, updates = [sum(both) for both in times], [update for _, update in times]
    return {
        "wall_s": round(sum(steps), 4),
        "optimizer_s": round(sum(updates), 4),
        "step_s": round(statistics.median(steps), 6),
        "optimizer_step_s": round(statistics.median(updates), 6),
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line, allow_nan=False) + "\n")
    sys.stdout.flush()


def main(request: str, arrays: str) -> None:
    """Answer one request."""
    try:
        values, weights = load(Path(arrays))
        result = train(Training.from_json(request), values, weights, lambda mean, loss: _say({"mean": mean, "loss": _number(loss)}))
    except Exception as error:
        refused = isinstance(error, InvalidConfigError)
        _say({"failed": str(error) if refused else in_one_line(error), "refused": refused})
        raise
    _say({"result": result})


if __name__ == "__main__":
    main(*sys.argv[1:])
