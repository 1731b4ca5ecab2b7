"""Effort levels and what overrides them."""

from __future__ import annotations

import pytest

from sonew.errors import InvalidConfigError
from sonew_autotune.settings import EFFORTS, Settings, make_settings


def test_explicit_numbers_win_over_the_level() -> None:
    quick = EFFORTS["quick"]
    assert make_settings("quick", trials=None, budget_s=None, seed=3, fresh=False) == Settings(
        trials=quick.trials, rounds=quick.rounds, budget_s=quick.budget_s, seed=3
    )
    chosen = make_settings("full", trials=2, budget_s=5.0, seed=0, fresh=True)
    assert (chosen.trials, chosen.budget_s, chosen.rounds, chosen.fresh) == (2, 5.0, EFFORTS["full"].rounds, True)


def test_a_plain_run_ends_within_four_minutes() -> None:
    assert EFFORTS["normal"].budget_s + 10 <= 240


@pytest.mark.parametrize(
    ("effort", "trials", "budget", "match"),
    [
        ("huge", None, None, r"effort='huge' is not one of \['quick', 'normal', 'full'\].*--effort normal"),
        ("quick", 0, None, r"trials=0 .*at least 1.*--trials"),
        ("quick", None, 0.0, r"budget=0.0 .*positive.*--budget"),
        ("quick", None, float("nan"), r"budget=nan"),
    ],
)
def test_wrong_settings(effort: str, trials: int | None, budget: float | None, match: str) -> None:
    with pytest.raises(InvalidConfigError, match=match):
        make_settings(effort, trials=trials, budget_s=budget, seed=0, fresh=False)
