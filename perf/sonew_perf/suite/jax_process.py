"""What the process of a JAX group does: check, then time. No torch is loaded by it.

Run as `python -m sonew_perf.suite.jax_process REQUEST RESULT`: the request as JSON text, the result's file, written as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from sonew.jax import sonew
from sonew_perf.entries import in_one_line
from sonew_perf.jax.request import ADAMW, JaxTiming, Method
from sonew_perf.jax.timing import PLATFORMS, time_case
from sonew_perf.suite.truth import BETAS, DECAY, EPS, EPS_REL, LR, Arrays, Stepper, WrongStepError, check_step


def stepper(method: Method, device: jax.Device) -> Stepper:
    """Jitted steps of the JAX surface, with the numbers of `truth`."""
    beta1, beta2 = BETAS
    tx = sonew(LR, beta1, beta2, EPS, DECAY, eps_rel=EPS_REL, band=method.band, backend=method.backend)

    @jax.jit
    def take(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:  # noqa: ANN401  # trees
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def step(params: Arrays, grads: Sequence[Arrays]) -> Arrays:
        with jax.default_device(device):
            own: Any = [jax.device_put(param, device) for param in params]
            state = tx.init(own)
            for every in grads:
                own, state = take(own, state, [jax.device_put(grad, device) for grad in every])
        return [np.asarray(param) for param in own]

    return step


def reasons_of(timing: JaxTiming) -> dict[str, str]:
    """Why methods may not be timed, by case: results that differ from the reference, or an error on the way to them."""
    device = jax.devices(PLATFORMS[timing.device])[0]
    reasons = {}
    for method in timing.methods:
        if method.family == ADAMW:
            continue
        try:
            check_step(method.band, stepper(method, device))
        except WrongStepError as error:
            reasons[method.case] = f"wrong: {error}"
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this method's result
            reasons[method.case] = in_one_line(error)
    return reasons


def check_and_time(timing: JaxTiming) -> dict[str, Any]:
    """`jax.timing.time_case` of the methods that passed; the others are among its failures."""
    reasons = reasons_of(timing)
    passed = tuple(method for method in timing.methods if method.case not in reasons)
    result = time_case(replace(timing, methods=passed))
    return result | {"failures": {**reasons, **result["failures"]}}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(check_and_time(JaxTiming.from_json(sys.argv[1]))), encoding="utf-8")
