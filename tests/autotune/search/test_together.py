"""Several processes on one study, and what is left when they are killed: nothing finished is lost, nothing is timed twice."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from sonew import tuned
from sonew_autotune.search import journals
from sonew_autotune.search.opening import join_search
from sonew_autotune.search.plan import Plan
from sonew_autotune.search.results import Record
from sonew_autotune.search.storage import open_storage
from sonew_autotune.search.study import MAX_DEATHS, RECORD
from sonew_autotune.search.targets import recorded_target
from sonew_autotune.search.together import decided_entries
from sonew_autotune.space import Point, point_of
from tests.autotune.search.workers import BEST, LANDSCAPE, POINTS, SETTINGS, forked, kill, status_of, tune

TARGET = recorded_target(LANDSCAPE)
KILLS = 16


def _records(url: str) -> list[Record]:
    with open_storage(url) as opened:
        return join_search(opened, TARGET.study_name, TARGET.space, Plan(trials=1)).records


def _tried(journal: Path) -> list[str]:
    """The configuration of every record in a journal, as often as it is there."""
    if not journal.exists():
        return []
    whole = journal.read_text(encoding="utf-8").rpartition("\n")[0]
    lines = [json.loads(line) for line in whole.splitlines()]
    return [json.dumps(line["user_attr"][RECORD]["config"]) for line in lines if RECORD in line.get("user_attr", {})]


def _kill_at_random(child: int, spread: random.Random, finished: Callable[[], int]) -> None:
    """Kill a child that has finished none to two trials, or all that there are, at some moment of what it does next."""
    wanted, limit = min(finished() + spread.randrange(3), len(POINTS)), time.monotonic() + 20
    while finished() < wanted and time.monotonic() < limit:
        time.sleep(0.002)
    time.sleep(spread.uniform(0.0, 0.03))
    kill(child)


def _check_store(store: Path) -> None:
    (entry,) = tuned.read_store("user store", store).entries
    assert entry.config.as_dict() == BEST
    assert entry.evidence["trials"] == len(POINTS)


def test_workers_share_the_trials_and_agree_on_one_result(tmp_path: Path) -> None:
    journal = tmp_path / "studies.journal"
    stores = [tmp_path / f"store{number}.json" for number in range(3)]
    children = [
        forked(partial(tune, tmp_path, storage=str(journal), store=store, seed=seed, delay_s=0.01)) for seed, store in enumerate(stores)
    ]
    assert [status_of(child) for child in children] == [0, 0, 0]
    tried = _tried(journal)
    assert len(tried) == len(set(tried)) == len(POINTS)
    for store in stores:
        _check_store(store)
    dates = {store.read_text(encoding="utf-8") for store in stores}
    assert len(dates) == 1  # decided once
    with open_storage(str(journal)) as opened:
        (entry,) = decided_entries(opened)
    assert entry.config.as_dict() == BEST


def test_killed_workers_lose_no_finished_trial_and_the_rest_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "UNSIGNED_S", 0.3)
    journal, spread = tmp_path / "studies.journal", random.Random(1)
    finished: set[Point] = set()
    for number in range(KILLS):
        child = forked(partial(tune, tmp_path, storage=str(journal), store=tmp_path / "killed.json", seed=number, delay_s=0.001))
        _kill_at_random(child, spread, lambda: len(_tried(journal)))
        known = {point_of(record.config) for record in _records(str(journal))}
        assert finished <= known
        finished = known
    assert len(finished) > 0
    result = tune(tmp_path, storage=str(journal), store=tmp_path / "store.json", seed=0)
    assert result.entry is not None
    _check_store(tmp_path / "store.json")
    tried = _tried(journal)
    assert len(tried) == len(set(tried)) == len(POINTS)
    assert result.failures == ()


def test_a_dead_workers_trial_goes_to_a_living_one(tmp_path: Path) -> None:
    journal = tmp_path / "studies.journal"
    slow = forked(partial(tune, tmp_path, storage=str(journal), store=tmp_path / "a.json", seed=0, delay_s=30.0))
    limit = time.monotonic() + 20
    while '"lease"' not in (journal.read_text(encoding="utf-8") if journal.exists() else "") and time.monotonic() < limit:
        time.sleep(0.01)
    living = forked(partial(tune, tmp_path, storage=str(journal), store=tmp_path / "b.json", seed=1))
    while len(_tried(journal)) < len(POINTS) - 1 and time.monotonic() < limit:
        time.sleep(0.05)
    assert len(_tried(journal)) == len(POINTS) - 1  # it waits for the last point, which the slow one holds
    kill(slow)
    assert status_of(living) == 0
    _check_store(tmp_path / "b.json")


def test_a_point_at_which_processes_keep_dying_is_a_failure(tmp_path: Path) -> None:
    journal = tmp_path / "studies.journal"
    for number in range(MAX_DEATHS):
        child = forked(partial(tune, tmp_path, storage=str(journal), store=tmp_path / "a.json", seed=number, delay_s=30.0))
        limit = time.monotonic() + 20
        while (journal.read_text(encoding="utf-8") if journal.exists() else "").count('"lease"') <= number and time.monotonic() < limit:
            time.sleep(0.01)
        kill(child)
    (record,) = _records(str(journal))
    assert record.failure is not None
    assert (record.failure.kind, record.config) == ("crash", dict(LANDSCAPE.default))
    assert f"{MAX_DEATHS} processes died" in record.failure.message


@pytest.mark.parametrize("seed", range(2))
def test_a_tuner_that_is_killed_alone_resumes(tmp_path: Path, seed: int) -> None:
    spread, store = random.Random(seed), tmp_path / "store.json"
    for number in range(KILLS):
        child = forked(partial(tune, tmp_path, storage=None, store=store, seed=number, delay_s=0.001))
        _kill_at_random(child, spread, lambda: sum(map(len, map(_tried, (tmp_path / "studies").glob("*.journal")))))
    result = tune(tmp_path, storage=None, store=store, seed=0, settings=SETTINGS)
    assert result.entry is not None
    _check_store(store)
    (journal,) = (tmp_path / "studies").glob("*.journal")
    tried = _tried(journal)
    assert len(tried) == len(set(tried)) == len(POINTS)


def test_two_tuners_with_one_store_lose_nothing(tmp_path: Path) -> None:
    """Each has studies of its own; both write the same file, over and over."""
    store = tmp_path / "store.json"
    children = [forked(partial(tune, tmp_path / str(number), storage=None, store=store, seed=number)) for number in range(2)]
    assert [status_of(child) for child in children] == [0, 0]
    _check_store(store)
