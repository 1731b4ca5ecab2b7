"""What a process that trains in JAX is asked: plain data, as JSON, and what it refuses. No framework is loaded here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from sonew.errors import InvalidConfigError
from sonew_perf.entries import installed_version
from sonew_perf.jax.ask import NO_JAX
from sonew_perf.jax.request import LARGEST_XLA_BAND
from sonew_perf.training.runs import Run
from sonew_perf.training.settings import Settings

PRECISIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "sonew": ("fp32", "bf16-state", "bf16"),
    "adam": ("fp32", "bf16"),
    "adamw": ("fp32", "bf16"),
    "sgd": ("fp32", "bf16"),
    "rmsprop": ("fp32", "bf16"),
    "adagrad": ("fp32", "bf16"),
    "muon": ("fp32", "bf16"),
}
"""The methods that JAX trains with, ours and optax's, each with its precisions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One run, as its process is asked.

    Attributes:
        run: what to train. device: "cpu" or "cuda".
        every: steps that a recorded mean loss is over.
    """

    run: Run
    device: str
    every: int

    def to_json(self) -> str:
        """As `from_json` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Training:
        """The request that `to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        run = fields["run"]
        made = Run(**(run | {"uses": tuple(run["uses"]), "settings": Settings(**run["settings"])}))
        return cls(run=made, device=fields["device"], every=fields["every"])


def save(path: Path, values: np.ndarray, weights: Sequence[np.ndarray]) -> None:
    """Write the examples and the first weights as an .npz file, as `load` reads it."""
    np.savez(path, values, *weights)


def load(path: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """The examples and the first weights."""
    with np.load(path, allow_pickle=False) as held:
        values, *weights = (held[f"arr_{number}"] for number in range(len(held.files)))
    return values, weights


def check_trains_in_jax(run: Run, device: str) -> None:
    """Refuse what JAX does not train.

    Args:
        run: what is asked for. device: "cpu" or "cuda".

    Raises:
        InvalidConfigError: JAX is not installed; neither ours nor optax's is this method; it does not come in this precision; an idea that
            is tried in torch alone; or a band that XLA takes minutes to compile.
    """
    if "not installed" in (installed_version("jax"), installed_version("optax")):
        msg = f"framework='jax' is not allowed here: {NO_JAX}."
        raise InvalidConfigError(msg)
    _require("method", run.method, list(PRECISIONS))
    _require("precision", run.precision, list(PRECISIONS[run.method]), f"--precision {PRECISIONS[run.method][0]} or ")
    _require("idea", run.settings.idea, ["none"], "--set idea=none or ")
    if run.band is not None and run.band > LARGEST_XLA_BAND and device == "cpu":
        msg = (
            f"band={run.band} is not allowed with framework='jax' on a CPU: it must be at most {LARGEST_XLA_BAND}, XLA takes minutes to "
            f"compile wider ones. Pass --band {LARGEST_XLA_BAND}, --framework torch or --device cuda."
        )
        raise InvalidConfigError(msg)


def _require(name: str, value: str, allowed: list[str], fix: str = "") -> None:
    if value not in allowed:
        msg = f"{name}={value!r} is not allowed with framework='jax': it must be one of {allowed}. Pass {fix}--framework torch."
        raise InvalidConfigError(msg)
