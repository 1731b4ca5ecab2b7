"""The search: what is tried, never twice, and what survives a death. The objective is a formula."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from sonew_autotune.search.opening import open_search
from sonew_autotune.search.plan import Plan
from sonew_autotune.search.study import Search
from sonew_autotune.space import build_space
from sonew_autotune.store.journal import LockedError
from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.trial import Timed
from tests.autotune.samples import timed

SPACE = build_space("cpu", 1, threads=2, cores=2)
BEST = {"segment": 16384, "block": 512, "threads": 0}


def ratio(config: Mapping[str, int]) -> float:
    """Smallest at BEST, 1 at the default's distance."""
    return 0.5 + 0.1 * sum(config[name] != value for name, value in BEST.items()) + 0.3 * config["threads"]


class Objective:
    """Counts what it is asked; fails for one block, raises after so many calls."""

    def __init__(self, *, raise_after: int | None = None, failing_block: int | None = None) -> None:
        self.asked: list[dict[str, int]] = []
        self.raise_after = raise_after
        self.failing_block = failing_block

    def __call__(self, config: dict[str, int]) -> Timed | Failure:
        self.asked.append(config)
        if self.raise_after is not None and len(self.asked) > self.raise_after:
            raise KeyboardInterrupt
        if config["block"] == self.failing_block:
            return Failure("wrong", "param differs")
        return timed(ratio(config))


def _distinct(configs: list[dict[str, int]]) -> int:
    return len({tuple(sorted(config.items())) for config in configs})


def test_the_default_and_the_neighbours_come_first(tmp_path: Path) -> None:
    objective = Objective()
    neighbour = {**SPACE.default, "block": 256}
    outside = {**SPACE.default, "threads": 64}
    with open_search(tmp_path, "s", SPACE, Plan(trials=5, seed=0, first=[SPACE.default, neighbour, outside, neighbour])) as search:
        search.run(objective)
    assert objective.asked[:2] == [SPACE.default, neighbour]
    assert len(objective.asked) == _distinct(objective.asked) == 5
    assert all(config in SPACE for config in objective.asked)


def test_the_model_finds_the_valley_in_a_fraction_of_the_space(tmp_path: Path) -> None:
    objective = Objective()
    with open_search(tmp_path, "s", SPACE, Plan(trials=len(SPACE.points()) // 2, seed=1, first=[SPACE.default])) as search:
        assert not search.exhaustive
        search.run(objective)
        best = search.ranked[0]
    assert best.ratio is not None
    assert best.ratio.median == pytest.approx(0.5)
    assert {name: best.config[name] for name in BEST} == BEST


def test_a_small_space_is_tried_whole(tmp_path: Path) -> None:
    objective = Objective(failing_block=2048)
    told: list[object] = []
    with open_search(tmp_path, "s", SPACE, Plan(trials=10**6, seed=0, first=[SPACE.default])) as search:
        assert search.exhaustive
        search.run(objective, told=told.append)
        failed = [record for record in search.records if record.failure is not None]
        ranked = search.ranked
    points = SPACE.points()
    assert len(objective.asked) == _distinct(objective.asked) == len(points) == len(told)
    assert len(failed) == sum(point["block"] == 2048 for point in points)
    assert all(record.ratio is None and record.failure == Failure("wrong", "param differs") for record in failed)
    assert [record.ratio.median for record in ranked if record.ratio] == pytest.approx(
        sorted(ratio(point) for point in points if point["block"] != 2048)
    )


def test_an_interrupted_search_goes_on_where_it_was(tmp_path: Path) -> None:
    first = Objective(raise_after=3, failing_block=SPACE.default["block"])
    with pytest.raises(KeyboardInterrupt), open_search(tmp_path, "s", SPACE, Plan(trials=8, seed=0, first=[SPACE.default])) as search:
        search.run(first)
    second = Objective()
    with open_search(tmp_path, "s", SPACE, Plan(trials=8, seed=0, first=[SPACE.default])) as search:
        assert search.resumed == 3
        assert [record.config for record in search.records] == first.asked[:3]
        assert search.records[0].failure == Failure("wrong", "param differs")
        search.run(second)
        assert len(search.records) == 8
    assert second.asked[0] == first.asked[3]  # what was under way is asked again
    assert len(second.asked) == 5
    assert _distinct(first.asked[:3] + second.asked) == 8
    third = Objective()
    with open_search(tmp_path, "s", SPACE, Plan(trials=8, seed=0)) as search:
        search.run(third)
        assert search.resumed == 8
    assert third.asked == []


def test_fresh_forgets_and_another_name_is_another_study(tmp_path: Path) -> None:
    for name, fresh, resumed in (("a", False, 0), ("a", False, 2), ("b", False, 0), ("a", True, 0)):
        with open_search(tmp_path, name, SPACE, Plan(trials=2, seed=0), fresh=fresh) as search:
            assert search.resumed == resumed
            search.run(Objective())


def test_keep_going_is_asked_before_each_trial(tmp_path: Path) -> None:
    objective = Objective()
    with open_search(tmp_path, "s", SPACE, Plan(trials=9, seed=0)) as search:
        search.run(objective, keep_going=lambda: len(objective.asked) < 2)
    assert len(objective.asked) == 2


def test_a_search_is_alone_on_its_journal(tmp_path: Path) -> None:
    with (
        open_search(tmp_path, "s", SPACE, Plan(trials=2)),
        pytest.raises(LockedError, match="another process"),
        open_search(tmp_path, "s", SPACE, Plan(trials=2)),
    ):
        pass


def test_a_torn_journal_keeps_its_finished_trials(tmp_path: Path) -> None:
    with open_search(tmp_path, "s", SPACE, Plan(trials=4, seed=0)) as search:
        search.run(Objective())
    path = tmp_path / "s.journal"
    path.write_bytes(path.read_bytes() + b'{"op_code": 4, "worker_')
    objective = Objective()
    with open_search(tmp_path, "s", SPACE, Plan(trials=6, seed=0)) as search:
        assert search.resumed == 4
        search.run(objective)
    assert len(objective.asked) == 2
    with open_search(tmp_path, "s", SPACE, Plan(trials=6, seed=0)) as search:
        assert search.resumed == 6


BROKEN = (b'{"op_code": 4, "work', b"\xff\xfe", b'{"op_code": 99}', b"[]", b'{"op_code": 8, "study_id": 0}')


@pytest.mark.parametrize("broken", BROKEN)
def test_a_journal_broken_in_the_middle_is_set_aside_with_a_word(tmp_path: Path, broken: bytes) -> None:
    with open_search(tmp_path, "s", SPACE, Plan(trials=3, seed=0)) as search:
        search.run(Objective())
    path = tmp_path / "s.journal"
    lines = path.read_bytes().splitlines()
    lines.insert(len(lines) // 2, broken)
    path.write_bytes(b"\n".join(lines) + b"\n")
    damaged = path.read_bytes()
    said: list[str] = []
    with open_search(tmp_path, "s", SPACE, Plan(trials=3, seed=0), warn=said.append) as search:
        assert search.resumed == 0
        search.run(Objective())
    (aside,) = tmp_path.glob("s.journal.corrupt-*")
    assert aside.read_bytes() == damaged
    assert len(said) == 1
    assert str(aside) in said[0]
    with open_search(tmp_path, "s", SPACE, Plan(trials=3, seed=0), warn=pytest.fail) as search:
        assert search.resumed == 3


KILLED = """
import os, signal, sys
from pathlib import Path
from sonew_autotune.search.plan import Plan
from sonew_autotune.search.opening import open_search
from tests.autotune.samples import timed
from tests.autotune.search.test_study import SPACE, ratio

asked = 0
def objective(config):
    global asked
    asked += 1
    if asked > 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return timed(ratio(config))

with open_search(Path(sys.argv[1]), "s", SPACE, Plan(trials=9, seed=0, first=[SPACE.default])) as search:
    search.run(objective)
"""


def _records(search: Search) -> list[dict[str, int]]:
    return [record.config for record in search.records]


def test_a_killed_process_loses_no_finished_trial(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    objective = Objective()
    with open_search(tmp_path, "s", SPACE, Plan(trials=9, seed=0, first=[SPACE.default])) as search:
        assert search.resumed == 4
        finished = _records(search)
        search.run(objective)
        assert _records(search)[:4] == finished
    assert finished[0] == SPACE.default
    assert len(objective.asked) == 5
    assert _distinct(finished + objective.asked) == 9
