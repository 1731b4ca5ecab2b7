"""The optimizers that JAX trains with: ours and optax's, with a learning rate of 1: the loop scales what they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import jax
import optax

from sonew.dispatch import make_plan
from sonew.jax import sonew
from sonew.jax.direction import gpu_problem
from sonew_perf.entries import plan_entry
from sonew_perf.training.runs import Run
from sonew_perf.training.settings import Settings

MUON_RMS: Final = 0.2  # about that of Adam's updates, so that one rate serves both; torch's "match_rms_adamw"


def state_dtype(precision: str) -> str:
    """Of SONew's state."""
    return "float32" if precision == "fp32" else "bfloat16"


def _sonew(settings: Settings, precision: str) -> optax.GradientTransformation:
    """`layers` is not asked: the autoencoder has no embeddings."""
    return sonew(
        1.0,
        settings.beta1,
        settings.beta2,
        settings.eps,
        settings.weight_decay,
        band=settings.band,
        chain=settings.chain,  # type: ignore[arg-type]  # sonew checks it
        eps_rel=settings.eps_rel,
        gamma=settings.gamma,
        graft=settings.graft,  # type: ignore[arg-type]  # sonew checks it
        state_dtype=state_dtype(precision),
    )


def _adam(settings: Settings, _precision: str) -> optax.GradientTransformation:
    return optax.adam(1.0, settings.beta1, settings.beta2, settings.eps)


def _adamw(settings: Settings, _precision: str) -> optax.GradientTransformation:
    return optax.adamw(1.0, settings.beta1, settings.beta2, settings.eps, weight_decay=settings.weight_decay)


def _sgd(settings: Settings, _precision: str) -> optax.GradientTransformation:
    return optax.sgd(1.0, momentum=settings.beta1)


def _rmsprop(settings: Settings, _precision: str) -> optax.GradientTransformation:
    return optax.rmsprop(1.0, settings.beta2, settings.eps, eps_in_sqrt=False, momentum=settings.beta1)  # eps where torch has it


def _adagrad(settings: Settings, _precision: str) -> optax.GradientTransformation:
    """Unlike torch's, optax's eps stands inside the root."""
    return optax.adagrad(1.0, initial_accumulator_value=0.0, eps=settings.eps)


def _muon(settings: Settings, _precision: str) -> optax.GradientTransformation:
    """Matrices by Muon, the rest by Adam as torch has it: left to itself, optax's Muon gives them Nesterov's."""
    muon = optax.contrib.muon(1.0, beta=settings.beta1, weight_decay=settings.weight_decay, consistent_rms=MUON_RMS)
    return optax.partition(
        {"matrix": muon, "rest": optax.adam(1.0)}, lambda params: ["matrix" if param.ndim == 2 else "rest" for param in params]
    )


BUILD: Final[Mapping[str, Callable[[Settings, str], optax.GradientTransformation]]] = {
    "sonew": _sonew,
    "adam": _adam,
    "adamw": _adamw,
    "sgd": _sgd,
    "rmsprop": _rmsprop,
    "adagrad": _adagrad,
    "muon": _muon,
}
"""By method: the transformation of (settings, precision)."""


def state_bytes(state: Any) -> int:  # noqa: ANN401  # a tree
    """Bytes of every array in the optimizer's state."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state))


def describe_plans(run: Run, lengths: Sequence[int], device: str) -> list[dict[str, object]]:
    """What steps SONew's tensors, and why (`entries.plan_entry`); [] of another method.

    Args:
        run: what is trained. lengths: of its tensors. device: "cpu" or "cuda".
    """
    if run.band is None:
        return []
    grad = "bfloat16" if run.precision == "bf16" else "float32"
    chain: Any = run.settings.chain
    problem = gpu_problem(lengths, band=run.band, chain=chain, grad=grad, state=state_dtype(run.precision))
    return [plan_entry(make_plan(replace(problem, device=device), framework="jax"))]
