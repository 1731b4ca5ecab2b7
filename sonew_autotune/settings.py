"""How much a run may spend, and how it ends. Nothing heavy is imported here: `--help` reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import ClassVar, Final

from sonew.errors import InvalidConfigError, SonewError


class Exit(IntEnum):
    """Exit codes of the command line."""

    DONE = 0
    CHECK_FAILED = 1
    WRONG_USE = 2
    NOT_JUDGED = 3
    INTERRUPTED = 130  # as shells report Ctrl-C; what was finished is kept


class StorageError(SonewError, RuntimeError):
    """A shared storage cannot be reached, or failed on the way."""

    exit_code: ClassVar[Exit] = Exit.WRONG_USE


HEARTBEAT_S: Final = 15  # seconds between two signs of life in a database
LARGEST_SEED: Final = 2**32  # numpy takes no larger ones
EVERY_POINT: Final = "every-point"  # the sampler that is none: all points, in random order


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is spent, and how.

    Attributes:
        trials: configurations to know per problem, earlier runs counted in. rounds: of a trial.
        budget_s: of the whole run. trial_s: of one candidate, from compiling to the last round.
        patience: trials without progress after which a guided search ends, None: never.
        sampler: one of `samplers.sampler_names`, None: every point where they fit into `trials`, else TPE.
        seed: of sampler and orders. fresh: forget earlier runs.
    """

    trials: int
    rounds: int
    budget_s: float
    trial_s: float = 120.0
    patience: int | None = None
    sampler: str | None = None
    seed: int = 0
    fresh: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        for name, value in (("trials", self.trials), ("rounds", self.rounds)):
            if value < 1:
                msg = f"{name}={value} is not allowed: it must be at least 1. Pass for example --{name} 40."
                raise InvalidConfigError(msg)
        for name, seconds in (("budget", self.budget_s), ("trial-timeout", self.trial_s)):
            if not 0 < seconds < float("inf"):
                msg = f"{name}={seconds} is not allowed: it must be a positive number of seconds. Pass for example --{name} 120."
                raise InvalidConfigError(msg)
        if not 0 <= self.seed < LARGEST_SEED:
            msg = f"seed={self.seed} is not allowed: it must lie between 0 and {LARGEST_SEED - 1}. Pass for example --seed 0."
            raise InvalidConfigError(msg)


EFFORTS: Final[Mapping[str, Settings]] = {
    "quick": Settings(trials=8, rounds=3, budget_s=60),
    "normal": Settings(trials=40, rounds=5, budget_s=210, patience=20),
    "full": Settings(trials=400, rounds=12, budget_s=3600, patience=100),
}
STATIC_BUDGETS_S: Final[Mapping[str, float]] = {"quick": 240, "normal": 3600, "full": 3600}
"""Of a run for a GPU that is not here: compiling every candidate ends by itself, mostly long before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problems:
    """The problem list as asked for; empty means the defaults of `sonew_autotune.problems.cases_of`."""

    bands: Sequence[int] = ()
    sizes: Sequence[int] = ()
    models: Sequence[str] = ()
    dtypes: Sequence[str] = ()
    states: Sequence[str] = ()
    device: str = "auto"


def make_settings(
    effort: str,
    *,
    trials: int | None = None,
    budget_s: float | None = None,
    trial_s: float | None = None,
    sampler: str | None = None,
    seed: int = 0,
    fresh: bool = False,
) -> Settings:
    """The settings of an effort level, with what was asked for explicitly.

    Raises:
        InvalidConfigError: an unknown level or a number out of range.
    """
    if effort not in EFFORTS:
        msg = f"effort={effort!r} is not one of {list(EFFORTS)}. Pass --effort normal."
        raise InvalidConfigError(msg)
    chosen = EFFORTS[effort]
    return replace(
        chosen,
        trials=chosen.trials if trials is None else trials,
        budget_s=chosen.budget_s if budget_s is None else budget_s,
        trial_s=chosen.trial_s if trial_s is None else trial_s,
        sampler=sampler,
        seed=seed,
        fresh=fresh,
    )
