"""The process of one side of a comparison: builds steps from the SONew on its path and times a few calls when asked.

Run as a file, `python -P sampler.py MEASURE`, with the checkout to measure first on PYTHONPATH: this text and the clock (the file
MEASURE, `sonew_autotune/measure.py`) are the same on both sides, SONew is each side's own. A request is a line of JSON on the standard
input, its answer a line on what was the standard output; an error is an answer. Only SONew's public interface is used, so that old
versions can be compared.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Work = Callable[[], object]
Make = Callable[[], Work]
Clock = Callable[[Work, int], float]
STRETCHES = 5
HELD = 6  # blocks between old and new tensors
LARGEST_BLOCK = 2**22
LR = 1e-6  # parameters stay where they are however often a step is taken


def load_measure(path: str) -> Any:  # noqa: ANN401  # a module
    """The clock's module from its file, whatever version of it is on the path."""
    spec = importlib.util.spec_from_file_location("shared_measure", path)
    if spec is None or spec.loader is None:
        msg = f"{path} is no Python file"
        raise ImportError(msg)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def torch_step(case: dict[str, Any], device: str, tuning: str) -> tuple[Make, dict[str, Any]]:
    """What makes a step of `sonew.torch.SONew` over fixed gradients, and what steps it."""
    import torch  # noqa: PLC0415  # the JAX side's process must not load it

    from sonew.torch import SONew  # noqa: PLC0415  # as torch

    generator = torch.Generator(device).manual_seed(0)
    params, grads = ([torch.randn(shape, device=device, generator=generator) for shape in case["shapes"]] for _ in range(2))
    state = {} if case["state"] == "float32" else {"state_dtype": case["state"], "direction_dtype": case["state"]}

    def stepped() -> SONew:
        mine = [param.clone() for param in params]
        for param, grad in zip(mine, grads, strict=True):
            param.grad = grad.clone()
        made = SONew(mine, lr=LR, band=case["band"], tuning=tuning, **state)  # type: ignore[arg-type]  # SONew checks the name
        made.step()
        return made

    plans = [f"{plan.backend}, {plan.config}, {plan.provenance}" for plan in stepped().plans()]
    return lambda: stepped().step, {"plans": plans}


def jax_step(case: dict[str, Any], device: str) -> tuple[Make, dict[str, Any]]:
    """What makes a jitted, donated step of `sonew.jax.sonew` over fixed gradients."""
    import jax  # noqa: PLC0415  # the torch side's process must not load it
    import numpy as np  # noqa: PLC0415  # as jax
    import optax  # noqa: PLC0415  # as jax

    from sonew.jax import sonew  # noqa: PLC0415  # as jax

    place = jax.devices({"cuda": "gpu"}.get(device, device))[0]  # an error where there is none
    rng = np.random.default_rng(0)
    params, grads = ([rng.standard_normal(shape, np.float32) for shape in case["shapes"]] for _ in range(2))
    tx = sonew(LR, band=case["band"])

    def take(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:  # noqa: ANN401  # trees
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    jitted = jax.jit(take, donate_argnums=(0, 1))

    def make() -> Work:
        mine, held = (jax.tree.map(jax.numpy.copy, jax.device_put(arrays, place)) for arrays in (params, grads))
        carried = [mine, jax.tree.map(jax.numpy.copy, tx.init(mine))]

        def step() -> object:
            carried[:] = jitted(*carried, held)
            return jax.block_until_ready(carried)

        step()
        return step

    return make, {"plans": []}


def slowed(work: Work, seconds: float) -> Work:
    """The work with so many seconds of waiting after each call: a slowdown that a comparison must find."""

    def call() -> object:
        result = work()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        return result

    return call


class Sampler:
    """Keeps the steps that were asked for and times them."""

    def __init__(self, measure: Any) -> None:  # noqa: ANN401  # a module
        self._measure = measure
        self._clock: Clock = measure.CLOCKS["cpu"]
        self._makes: dict[str, Make] = {}
        self._works: dict[str, Work] = {}
        self._between: list[bytearray] = []

    def prepare(self, case: dict[str, Any], device: str, tuning: str, slowdown: float) -> dict[str, Any]:
        """Build a case and say what it is and how many calls fill a sample.

        Args:
            case: name, framework, band, state and shapes. device: "cpu" or "cuda". tuning: "on", "off" or "pinned".
            slowdown: share of its own time by which each call is slowed down on purpose; on a CPU only.
        """
        if case["framework"] == "torch":
            make, facts = torch_step(case, device, tuning)
            self._clock = self._measure.CLOCKS[device]
        else:
            make, facts = jax_step(case, device)
        work = make()
        seconds = min(self._clock(work, 1) for _ in range(STRETCHES))
        calls = max(1, min(self._measure.MAX_REPETITIONS, round(self._measure.TARGET_SAMPLE_S / max(seconds, 1e-9))))
        if slowdown:
            wait = slowdown * min(self._clock(work, calls) for _ in range(STRETCHES)) / calls
            self._makes[case["name"]] = lambda: slowed(make(), wait)
        else:
            self._makes[case["name"]] = make
        self._works[case["name"]] = self._makes[case["name"]]()
        return facts | {"calls": calls}

    def renew(self, name: str) -> None:
        """Put a case's tensors elsewhere in memory: where they lie is worth some percent of a step, and stays as long as they do.

        Blocks of random sizes that are held for a while keep the system from handing out the same memory again.
        """
        self._between = [*self._between[-HELD:], bytearray(random.randrange(LARGEST_BLOCK))]  # noqa: S311  # no secret
        self._works[name] = self._makes[name]()

    def sample(self, name: str, calls: int) -> float:
        """Milliseconds per call, of the fastest of a few stretches: what disturbs a machine makes a stretch longer, never shorter.

        One call before them is not counted: it finds the caches as the other side left them.
        """
        work, stretches = self._works[name], min(STRETCHES, calls)
        work()
        each = calls // stretches
        return 1000 * min(self._clock(work, each) for _ in range(stretches)) / each

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What a request asks for."""
        if request["do"] == "prepare":
            return self.prepare(request["case"], request["device"], request["tuning"], request["slowdown"])
        if request["do"] == "renew":
            self.renew(request["name"])
            return {}
        if request["do"] == "sample":
            return {"ms": self.sample(request["name"], request["calls"])}
        import sonew  # noqa: PLC0415  # which one is the question

        return {"sonew": str(Path(sonew.__file__).resolve().parent), "version": sonew.__version__}


def main() -> None:
    """Answer until the input ends. What libraries print goes to the error output, so that it cannot look like an answer."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    sampler = Sampler(load_measure(sys.argv[1]))
    for line in sys.stdin:
        try:
            answer = sampler.answer(json.loads(line))
        except Exception as error:  # noqa: BLE001  # the other cases go on
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
