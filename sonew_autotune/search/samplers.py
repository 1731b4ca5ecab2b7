"""Optuna's samplers by name, seeded."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from typing import Final

import optuna
from optuna.samplers import BaseSampler

from sonew.errors import InvalidConfigError
from sonew_autotune.settings import EVERY_POINT

UNUSABLE: Final = ("Base", "BaseGA", "PartialFixed")  # not samplers of their own
COMPLETE: Final = ("BruteForce", "Grid")  # they try every point, which the search does by itself, without asking twice
NEEDS: Final[Mapping[str, str]] = {"cmaes": "cmaes", "gp": "scipy"}  # packages that Optuna loads late


def _classes() -> dict[str, type[BaseSampler]]:
    stems = {name: name.removesuffix("Sampler") for name in dir(optuna.samplers) if name.endswith("Sampler")}
    return {stem.lower(): getattr(optuna.samplers, name) for name, stem in stems.items() if stem not in (*UNUSABLE, *COMPLETE)}


def sampler_names() -> tuple[str, ...]:
    """Every name that `make_sampler` takes."""
    return (*sorted(_classes()), EVERY_POINT)


def check_sampler(name: str) -> None:
    """Refuse a name that is none, or whose package is missing.

    Raises:
        InvalidConfigError: with the names, or with what to install.
    """
    if name not in sampler_names():
        msg = f"sampler={name!r} is not one of {list(sampler_names())}. Pass --sampler tpe."
        raise InvalidConfigError(msg)
    package = NEEDS.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        msg = f"sampler={name!r} needs the package {package}, which is not installed. Run pip install {package}, or pass --sampler tpe."
        raise InvalidConfigError(msg)


def make_sampler(name: str, seed: int) -> BaseSampler:
    """The sampler of that name; for "every-point" a random one, which is not asked.

    Raises:
        InvalidConfigError: as `check_sampler`.
    """
    check_sampler(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _classes().get(name, optuna.samplers.RandomSampler)(seed=seed)  # type: ignore[call-arg]  # every one of them takes a seed
