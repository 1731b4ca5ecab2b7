"""Hyperparameters of a training run as one value, those that are known to be good, and where a search looks.

No framework is loaded here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sonew.errors import InvalidConfigError

LAYERS: Final = ("all", "no-embeddings")
IDEAS: Final = ("none", "averaged-after", "slow-couplings", "pivot-floor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an optimizer is made with; a method takes those fields that its row in `methods.METHODS` names.

    Attributes:
        lr: peak of the learning rate, > 0.
        beta1: decay of the momentum. beta2: decay of the second moments, both in [0, 1).
        eps: what keeps the method from dividing by zero, >= 0.
        weight_decay: decoupled: scaled by the learning rate it leaves every parameter that the method decays, >= 0.
        band, chain, eps_rel, gamma, graft: of SONew, as `sonew.torch.SONew` has them.
        layers: of SONew: "all" take the band, or "no-embeddings": embeddings take band 0, as `sonew.torch.param_groups` has it.
        idea: of SONew: a change of the method that is tried (`training.ideas`), or "none".

    Raises:
        InvalidConfigError: a setting outside its range. What SONew alone takes, SONew checks.
    """

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    band: int = 1
    chain: str | int = "tensor"
    eps_rel: float = 0.0
    gamma: float | None = None
    graft: str = "adam"
    layers: str = "all"
    idea: str = "none"

    def __post_init__(self) -> None:
        """Refuse what no optimizer takes."""
        if not 0 < self.lr < math.inf:
            msg = f"lr={self.lr} is not allowed: it must be a finite number above 0. Pass for example --lr 3e-3."
            raise InvalidConfigError(msg)
        for name, allowed in (("layers", LAYERS), ("idea", IDEAS)):
            if getattr(self, name) not in allowed:
                msg = f"{name}={getattr(self, name)!r} is not one of {list(allowed)}. Pass for example --set {name}={allowed[0]}."
                raise InvalidConfigError(msg)
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                msg = f"{name}={getattr(self, name)} is not allowed: it must lie in [0, 1). Pass for example --set {name}=0.9."
                raise InvalidConfigError(msg)
        for name in ("eps", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                msg = (
                    f"{name}={getattr(self, name)} is not allowed: it must be finite, and not below 0. Pass for example --set {name}=1e-6."
                )
                raise InvalidConfigError(msg)


_ADAM: Final[Mapping[str, float]] = {"lr": 4.14e-3, "beta1": 0.836, "beta2": 0.976, "eps": 6.5e-7}
KNOWN: Final[Mapping[tuple[str, str, int | None], Mapping[str, float]]] = {
    ("autoencoder", "adam", None): _ADAM,
    ("autoencoder", "adamw", None): _ADAM,
    ("autoencoder", "sonew", 0): _ADAM,
    ("autoencoder", "sonew", 1): {"lr": 6.17e-3, "beta1": 0.816, "beta2": 0.938, "eps": 3.6e-6},
    ("autoencoder", "sonew", 4): {"lr": 1.66e-2, "beta1": 0.844, "beta2": 0.993, "eps": 6.2e-8},
    ("autoencoder", "sonew", 8): {"lr": 1.66e-2, "beta1": 0.844, "beta2": 0.993, "eps": 6e-8},
    ("autoencoder", "soap", None): {"lr": 6e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8},
    ("autoencoder", "muon", None): {"lr": 8e-3, "beta1": 0.9},
}
"""By task, method and band (None: a method without one): the reference settings, where a search begins as well."""


def known(task: str, method: str, band: int | None) -> Mapping[str, float]:
    """The reference settings; where there are none, of a band the nearest narrower one's, else nothing: `Settings`' own."""
    if (found := KNOWN.get((task, method, band))) is not None:
        return found
    bands = [other for at, name, other in KNOWN if (at, name) == (task, method) and other is not None]
    narrower = [other for other in bands if band is not None and other < band]
    return KNOWN[task, method, max(narrower)] if narrower else {}


@dataclass(frozen=True, slots=True)
class Range:
    """Where a search looks for a setting, logarithmically between `low` and `high`; of `1 - value` where `complement`."""

    low: float
    high: float
    complement: bool = False


RANGES: Final[Mapping[str, Mapping[str, Range]]] = {
    "paper": {  # the authors' search, of 600 trials
        "lr": Range(1e-7, 10),
        "beta1": Range(1e-3, 0.1, complement=True),
        "beta2": Range(1e-3, 0.1, complement=True),
        "eps": Range(1e-10, 1e-2),
        "weight_decay": Range(1e-6, 0.1),
    },
    "narrow": {  # for tens of trials: around what such searches have found
        "lr": Range(1e-3, 5e-2),
        "beta1": Range(0.05, 0.25, complement=True),
        "beta2": Range(5e-3, 0.1, complement=True),
        "eps": Range(1e-13, 1e-5),
        "weight_decay": Range(1e-4, 0.1),
    },
}


def as_entry(settings: Settings, uses: tuple[str, ...]) -> dict[str, Any]:
    """The settings that a method uses, as a record holds them; an idea only where one is tried."""
    return {name: value for name in uses if (name, (value := getattr(settings, name))) != ("idea", "none")}
