"""How much a run may spend, and how it ends. Nothing heavy is imported here: `--help` reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from sonew.errors import InvalidConfigError


class Exit(IntEnum):
    """Exit codes of the command line."""

    DONE = 0
    CHECK_FAILED = 1
    WRONG_USE = 2
    NOT_JUDGED = 3
    INTERRUPTED = 130  # as shells report Ctrl-C; what was finished is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is spent.

    Attributes:
        trials: configurations to know per problem, earlier runs counted in. rounds: of a trial.
        budget_s: of the whole run. seed: of sampler and orders. fresh: forget earlier runs.
    """

    trials: int
    rounds: int
    budget_s: float
    seed: int = 0
    fresh: bool = False


EFFORTS: Final[Mapping[str, Settings]] = {
    "quick": Settings(trials=8, rounds=3, budget_s=60),
    "normal": Settings(trials=40, rounds=5, budget_s=210),
    "full": Settings(trials=400, rounds=7, budget_s=3600),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problems:
    """The problem list as asked for; empty means the defaults of `sonew_autotune.problems.cases_of`."""

    bands: Sequence[int] = ()
    sizes: Sequence[int] = ()
    models: Sequence[str] = ()
    dtypes: Sequence[str] = ()
    states: Sequence[str] = ()
    device: str = "auto"


def make_settings(effort: str, *, trials: int | None, budget_s: float | None, seed: int, fresh: bool) -> Settings:
    """The settings of an effort level, with what was asked for explicitly.

    Raises:
        InvalidConfigError: an unknown level or a number out of range.
    """
    if effort not in EFFORTS:
        msg = f"effort={effort!r} is not one of {list(EFFORTS)}. Pass --effort normal."
        raise InvalidConfigError(msg)
    if trials is not None and trials < 1:
        msg = f"trials={trials} is not allowed: it must be at least 1. Pass for example --trials {EFFORTS[effort].trials}."
        raise InvalidConfigError(msg)
    if budget_s is not None and not 0 < budget_s < float("inf"):
        msg = f"budget={budget_s} is not allowed: it must be a positive number of seconds. Pass for example --budget 120."
        raise InvalidConfigError(msg)
    chosen = EFFORTS[effort]
    return replace(
        chosen,
        trials=chosen.trials if trials is None else trials,
        budget_s=chosen.budget_s if budget_s is None else budget_s,
        seed=seed,
        fresh=fresh,
    )
