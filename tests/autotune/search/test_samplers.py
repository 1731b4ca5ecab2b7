"""Every sampler by name, seeded, on a space with holes."""

from __future__ import annotations

import warnings
from pathlib import Path

import optuna
import pytest

from sonew_autotune.search.opening import open_search
from sonew_autotune.search.plan import Plan
from sonew_autotune.search.samplers import NEEDS, sampler_names
from sonew_autotune.space import build_space
from sonew_autotune.trials.trial import Timed
from tests.autotune.samples import timed

SPACE = build_space("triton", 1, threads=0)
NAMES = [name for name in sampler_names() if name not in NEEDS]


def _tried(folder: Path, sampler: str, seed: int, trials: int = 12) -> list[dict[str, int]]:
    asked: list[dict[str, int]] = []

    def evaluate(config: dict[str, int]) -> Timed:
        asked.append(config)
        return timed(1.0 + abs(config["block"] - 512) / 512 + config["num_warps"] / 16)

    with warnings.catch_warnings(), open_search(folder, "s", SPACE, Plan(trials=trials, seed=seed, sampler=sampler)) as search:
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        search.run(evaluate, keep_going=lambda: len(asked) < trials)
    return asked


def test_the_names_are_optunas() -> None:
    assert set(sampler_names()) == {"cmaes", "every-point", "gp", "nsgaii", "nsgaiii", "qmc", "random", "tpe"}


@pytest.mark.parametrize("name", NAMES)
def test_a_sampler_repeats_with_its_seed_and_keeps_to_the_space(tmp_path: Path, name: str) -> None:
    first = _tried(tmp_path / "a", name, 1)
    assert first == _tried(tmp_path / "b", name, 1)
    assert len({tuple(config.items()) for config in first}) == len(first) == 12
    assert all(config in SPACE for config in first)
