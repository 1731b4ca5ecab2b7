"""A run as a function call, and a run that is replayed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import sonew_autotune
from sonew.errors import InvalidConfigError
from sonew_autotune import Problems, Result, make_settings, tune
from sonew_autotune.trials.landscape import read_landscapes, write_landscapes
from sonew_autotune.trials.outcome import Failure
from tests.autotune.landscapes import made_up
from tests.autotune.search.workers import BEST, LANDSCAPE, POINTS, cost


def test_a_replayed_run_finds_the_best_and_records_what_it_saw(tmp_path: Path) -> None:
    recording, again = tmp_path / "recording.json", tmp_path / "again.json"
    write_landscapes(recording, [LANDSCAPE])
    assert read_landscapes(recording) == (LANDSCAPE,)
    settings = make_settings("normal", seed=3)
    (result,) = tune(settings=settings, replay=recording, store=tmp_path / "s.json", state_dir=tmp_path / "state", record=again)
    assert isinstance(result, Result)
    assert result.status == "tuned"
    assert result.entry is not None
    assert result.entry.config.as_dict() == BEST
    assert (result.entry.evidence["search"], result.entry.evidence["stopped"]) == ("every point", "every point")
    (seen,) = read_landscapes(again)
    assert {tuple(record.config.items()) for record in seen.records} == {tuple(point.items()) for point in POINTS}
    assert seen.key == LANDSCAPE.key


def test_the_same_seed_gives_the_same_search(tmp_path: Path) -> None:
    recording = tmp_path / "recording.json"
    write_landscapes(recording, [LANDSCAPE])
    seen = []
    for number, seed in enumerate((1, 1, 2)):
        folder = tmp_path / str(number)
        settings = make_settings("normal", trials=15, sampler="tpe", seed=seed)
        tune(settings=settings, replay=recording, store=folder / "s.json", state_dir=folder, record=folder / "r.json")
        (landscape,) = read_landscapes(folder / "r.json")
        seen.append([(dict(record.config), record.times_ms) for record in landscape.records])
    assert seen[0] == seen[1] != seen[2]


def test_a_search_that_stalls_or_reaches_the_roof_says_so(tmp_path: Path) -> None:
    flat = made_up(lambda _: 1.0, POINTS, name="flat", noise=0.0001)
    write_landscapes(tmp_path / "flat.json", [flat])
    settings = make_settings("normal", trials=39, sampler="random", seed=0)
    (result,) = tune(settings=settings, replay=tmp_path / "flat.json", store=tmp_path / "s.json", state_dir=tmp_path)
    assert result.note == f"no better candidate in the last {settings.patience} trials"
    assert result.entry is not None
    assert result.entry.evidence["stopped"] == "stalled"
    (reused,) = tune(settings=settings, replay=tmp_path / "flat.json", store=tmp_path / "s.json", state_dir=tmp_path)
    assert reused.status == "reused"


def test_a_failing_candidate_is_replayed_as_a_failure(tmp_path: Path) -> None:
    broken = made_up(lambda config: Failure("memory", "too much") if config == BEST else cost(config), POINTS)
    write_landscapes(tmp_path / "r.json", [broken])
    (result,) = tune(replay=tmp_path / "r.json", store=tmp_path / "s.json", state_dir=tmp_path)
    assert [(record.config, record.failure) for record in result.failures] == [(BEST, Failure("memory", "too much"))]


def test_a_replay_is_not_for_the_users_store(tmp_path: Path) -> None:
    write_landscapes(tmp_path / "r.json", [LANDSCAPE])
    with pytest.raises(InvalidConfigError, match=r"replay=.* needs a store of its own.*--store"):
        tune(replay=tmp_path / "r.json", state_dir=tmp_path)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "is not a file of recorded trials"),
        ("[]", "is not a file of recorded trials"),
        ('{"schema_version": 2, "entries": []}', r"schema_version is 2, this version reads 1"),
        ('{"schema_version": 1, "entries": [{}]}', "it lacks 'case'"),
        ("[" * 100_000, "is not a file of recorded trials"),
    ],
)
def test_a_broken_recording_is_refused(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(InvalidConfigError, match=match):
        tune(replay=path, store=tmp_path / "s.json", state_dir=tmp_path)


@pytest.mark.parametrize(
    ("field", "value"), [("times_ms", [1.0, -1.0]), ("times_ms", []), ("default_ms", ["1"]), ("failure", {"kind": "x"})]
)
def test_a_recording_with_a_wrong_record_is_refused(tmp_path: Path, field: str, value: object) -> None:
    path = tmp_path / "r.json"
    write_landscapes(path, [LANDSCAPE])
    document = json.loads(path.read_text())
    document["entries"][0]["records"][0][field] = value
    path.write_text(json.dumps(document))
    with pytest.raises(InvalidConfigError, match="is not a file of recorded trials"):
        read_landscapes(path)


@pytest.mark.parametrize(
    ("sampler", "match"),
    [("tpee", r"sampler='tpee' is not one of \['cmaes', 'gp'.*'every-point'\]"), ("cmaes", r"needs the package cmaes.*pip install cmaes")],
)
def test_a_sampler_that_is_none_is_refused(tmp_path: Path, sampler: str, match: str) -> None:
    with pytest.raises(InvalidConfigError, match=match):
        tune(Problems(device="cpu"), settings=make_settings("quick", sampler=sampler), state_dir=tmp_path)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, sonew_autotune; assert not {'torch', 'optuna', 'numpy'} & set(sys.modules); print(sorted(sonew_autotune.__all__))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env={"PYTHONPATH": ":".join(sys.path)})
    assert done.stdout.strip() == str(sorted(sonew_autotune.__all__)), done.stderr
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sonew_autotune.nothing
