"""How good a search is, on landscapes that were gone through point by point.

`cpu-*.json` was measured (`sonew-autotune run --sampler every-point --effort full --record`): 40 points a problem, all that the
space has on 2 cores, so that normal effort tries every one of them. `model-*.json` are clocks by the static model, not
measured: 294 points, which is where a guided search has something to do.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from sonew_autotune.settings import EFFORTS, Settings
from sonew_autotune.trials.landscape import Landscape, read_landscapes
from tests.autotune.landscapes import made_up
from tests.autotune.search.simulate import regret
from tests.readme import ROOT

RECORDINGS = ROOT / "tests" / "autotune" / "recordings"
NORMAL = EFFORTS["normal"]
NEAR = 0.02
MEASURED = [landscape for path in sorted(RECORDINGS.glob("cpu-*.json")) for landscape in read_landscapes(path)]


def _modelled() -> Landscape:
    document = json.loads((RECORDINGS / "model-cuda-90-band1.json").read_text(encoding="utf-8"))
    *names, _ = document["columns"]
    clocks = {tuple(values): cost for *values, cost in document["rows"]}
    points = [dict(zip(names, values, strict=True)) for values in clocks]
    return made_up(lambda config: clocks[tuple(config[name] for name in names)], points, kernel="triton")


def _regrets(landscape: Landscape, settings: Settings, folder: Path, seeds: int) -> list[float]:
    return [regret(landscape, replace(settings, seed=seed), folder) for seed in range(seeds)]


def test_the_measured_landscapes_are_whole() -> None:
    assert {(landscape.case.band, landscape.case.elements) for landscape in MEASURED} >= {(1, 4194304), (4, 4194304)}
    assert {len(landscape.records) for landscape in MEASURED} == {40}
    assert all(record.failure is None for landscape in MEASURED for record in landscape.records)


@pytest.mark.parametrize("landscape", MEASURED, ids=lambda landscape: f"{landscape.case.band}-{landscape.case.name}")
def test_normal_effort_comes_near_the_best_measured_point(tmp_path: Path, landscape: Landscape) -> None:
    regrets = _regrets(landscape, NORMAL, tmp_path, 10)
    assert sum(each <= NEAR for each in regrets) >= 9


@pytest.mark.full
@pytest.mark.parametrize("landscape", MEASURED, ids=lambda landscape: f"{landscape.case.band}-{landscape.case.name}")
def test_normal_effort_comes_near_the_best_measured_point_in_ninety_of_a_hundred_seeds(tmp_path: Path, landscape: Landscape) -> None:
    regrets = _regrets(landscape, NORMAL, tmp_path, 100)
    assert sum(each <= NEAR for each in regrets) >= 90


def test_a_guided_search_comes_near_the_best_of_a_large_space(tmp_path: Path) -> None:
    assert all(each <= NEAR for each in _regrets(_modelled(), NORMAL, tmp_path, 2))


@pytest.mark.full
def test_a_guided_search_beats_random_search_with_as_many_trials(tmp_path: Path) -> None:
    modelled = _modelled()
    guided = _regrets(modelled, replace(NORMAL, patience=None), tmp_path, 100)
    drawn = _regrets(modelled, replace(NORMAL, patience=None, sampler="random"), tmp_path, 100)
    assert sum(each <= NEAR for each in guided) >= 90
    assert statistics.fmean(guided) < 0.5 * statistics.fmean(drawn)
