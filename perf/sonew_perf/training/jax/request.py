"""What a process that trains in JAX is asked: plain data, as JSON, and what it refuses. No framework is loaded here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

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


def check_trains_in_jax(method: str, band: int | None, precision: str, device: str) -> None:
    """Refuse what JAX does not train.

    Args:
        method: key of `methods.METHODS`. band: of SONew, else None. precision: key of `methods.PRECISIONS`. device: "cpu" or "cuda".

    Raises:
        InvalidConfigError: JAX is not installed, optax has no such method, it does not come in this precision, or XLA would take
            minutes to compile this band.
    """
    if "not installed" in (installed_version("jax"), installed_version("optax")):
        msg = f"framework='jax' is not allowed here: {NO_JAX}."
        raise InvalidConfigError(msg)
    if method not in PRECISIONS:
        msg = f"method={method!r} is not allowed with framework='jax': optax has it not, it must be one of {list(PRECISIONS)}. Pass --framework torch."
        raise InvalidConfigError(msg)
    if precision not in PRECISIONS[method]:
        allowed = list(PRECISIONS[method])
        msg = f"precision={precision!r} is not allowed with {method} in JAX: it must be one of {allowed}. Pass --precision fp32, or --framework torch."
        raise InvalidConfigError(msg)
    if band is not None and band > LARGEST_XLA_BAND and device == "cpu":
        msg = (
            f"band={band} is not allowed with framework='jax' on a CPU: it must be at most {LARGEST_XLA_BAND}, XLA takes minutes to compile "
            f"wider ones. Pass --band {LARGEST_XLA_BAND}, --framework torch or --device cuda."
        )
        raise InvalidConfigError(msg)
