"""Small awkward tensors stepped by the reference in float64: what a step must agree with before it is timed.

No framework is loaded here. Where a compiled kernel steps, `sonew_autotune.trials.check` looks closer; this is for the steps without one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from sonew import reference
from sonew.config import Hyper
from sonew.layout import MOMENTUM, STATS, state_layout

STEPS: Final = 3
PRIME: Final = 1009
TOLERANCE: Final = 2e-4  # of the largest magnitude, float32, as `sonew_autotune.trials.check.TOLERANCE`
LR, BETAS, EPS, EPS_REL, DECAY = 0.5, (0.8, 0.9), 1e-3, 0.5, 0.1  # damped, so that a window of few gradients is well conditioned

Arrays = Sequence[np.ndarray]
Stepper = Callable[[Arrays, Sequence[Arrays]], Arrays]
"""From float32 parameters and the gradients of every step to the parameters after the last one, with the numbers above."""


class WrongStepError(Exception):
    """A step differs from the reference; the message says where and by how much."""


def lengths(band: int) -> tuple[int, ...]:
    """Around the window's own length, and a prime."""
    return tuple(dict.fromkeys((1, max(1, band), band + 1, PRIME)))


def _expected(param: np.ndarray, grads: Arrays, band: int) -> np.ndarray:
    beta1, beta2 = BETAS
    hyper = Hyper(lr=LR, beta1=beta1, beta2=beta2, eps=EPS, eps_rel=EPS_REL, weight_decay=DECAY, band=band)
    layout = state_layout(param.shape, band)
    value, momentum, stats = param.astype(np.float64), *(np.zeros(layout[name].shape) for name in (MOMENTUM, STATS))
    for count, grad in enumerate(grads, start=1):
        value, momentum, stats = reference.step(np, value, grad.astype(np.float64), momentum, stats, np.asarray(float(count)), hyper)
    return value


def check_step(band: int, step: Stepper) -> None:
    """Hold a way of stepping to the reference.

    Args:
        band: off-diagonals. step: takes the steps.

    Raises:
        WrongStepError: a parameter is off.
        Exception: whatever stepping raises.
    """
    rng = np.random.default_rng(band)
    params = [rng.standard_normal(length).astype(np.float32) for length in lengths(band)]
    grads = [[rng.standard_normal(param.shape).astype(np.float32) for param in params] for _ in range(STEPS)]
    for number, (param, got) in enumerate(zip(params, step(params, grads), strict=True)):
        want = _expected(param, [every[number] for every in grads], band)
        error = np.abs(np.asarray(got, np.float64) - want)
        worst = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
        allowed = TOLERANCE * float(np.abs(want).max())
        if not error[worst] <= allowed:
            msg = (
                f"element {worst} of a tensor of {param.size} elements is {float(got[worst]):.7g}, the reference in float64 says "
                f"{float(want[worst]):.7g} (allowed error {allowed:.2g})"
            )
            raise WrongStepError(msg)
