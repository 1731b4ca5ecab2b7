from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonew_perf.errors import RecordError
from sonew_perf.process import ROOT
from sonew_perf.records.index import Index
from sonew_perf.records.model import Point
from sonew_perf.records.runs import BASELINES, Pin, write_pins, write_run
from tests.perf.records.made import (
    BEGIN,
    MACHINE,
    RUNS,
    SERIES,
    TORN,
    Step,
    everything,
    fake_commit,
    made_run,
    make_store,
    read_run,
    replace,
    step_entry,
)

OPENER = """
import sys
from pathlib import Path
from sonew_perf.records.index import Index
print(len(Index.open(Path(sys.argv[1])).summary_points()))
"""


def test_a_written_run_comes_back_whole(tmp_path: Path) -> None:
    run = made_run(3, label="<b>mine</b>", diff="abc123", modified=True)
    entries = [
        step_entry("copy", 8, [1.0, 3.0, 2.0]),
        step_entry("SONew band 1", 8, [4.0], {"copy": {"median": 2.0, "low": 1.5, "high": 2.5}}),
    ]
    path = write_run(tmp_path, run, entries)
    index = Index.open(tmp_path, None)
    (found,) = index.runs()
    assert found == made_run(3, label="<b>mine</b>", diff="abc123", modified=True, path=str(path))
    assert (found.commit, found.machine.details) == (fake_commit(3), {"python": "3.11.7", "torch": "2.13.0+cpu"})
    read, series, points = read_run(path, origin="store")
    assert (read, sorted(series, key=lambda one: one.case)) == (found, sorted(index.series(), key=lambda one: one.case))
    for one, point, entry in zip(series, points, entries, strict=True):
        assert index.points(one.id) == [point]
        assert index.entry(run.id, one.id) == entry
    with pytest.raises(RecordError, match="has no result of series 'nothing'"):
        index.entry(run.id, "nothing")
    with pytest.raises(RecordError, match="has no result"):
        index.entry("../../etc/passwd", series[0].id)
    assert index.points("nothing") == index.summary_points("nothing") == []


def test_points_are_by_date_and_the_summary_is_the_same_without_samples(made: Path) -> None:
    index = Index.open(made, None)
    assert len(index.series()) == SERIES
    dates = {run.id: run.date for run in index.runs()}
    assert list(dates.values()) == sorted(dates.values())
    for one in index.series():
        points = index.points(one.id)
        assert [dates[point.run] for point in points] == list(dates.values())
        bare = [Point(**{**{name: getattr(point, name) for name in Point.__slots__}, "samples": ()}) for point in points]
        assert index.summary_points(one.id) == bare
        assert [point for point in index.summary_points() if point.series == one.id] == bare
        assert index.last_points()[one.id] == bare[-1]


def test_a_store_is_the_same_however_its_folder_is_named(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(Index.open(store, None))
    stamp = (store / "index.sqlite").stat().st_mtime_ns
    monkeypatch.chdir(store)
    assert everything(Index.open(Path(), None)) == before
    assert (store / "index.sqlite").stat().st_mtime_ns == stamp, "nothing was read again"


def test_a_planted_step_is_in_the_points(tmp_path: Path) -> None:
    make_store(tmp_path, series=3, runs=6, step=Step(series=2, run=3, ratio=2.0))
    index = Index.open(tmp_path, None)
    stepped = next(one for one in index.series() if one.case == "SONew band 0")
    medians = [point.median or 0.0 for point in index.points(stepped.id)]
    assert min(medians[3:]) > 1.5 * max(medians[:3])


def test_the_last_point_is_the_last_one_with_a_number(store: Path) -> None:
    index = Index.open(store, None)
    copy = next(one for one in index.series() if one.case == "copy")
    before = index.last_points()[copy.id]
    entry = step_entry("copy", copy.elements, [], samples_ms=None, status="failed", reason="no memory")
    write_run(store, made_run(RUNS), [entry])
    index.refresh()
    assert (index.last_points()[copy.id], index.points(copy.id)[-1].reason) == (before, "no memory")


def test_the_committed_records_are_there_without_a_store(tmp_path: Path) -> None:
    index = Index.open(tmp_path / "nothing yet")
    assert {run.id for run in index.runs()} == {path.stem for path in BASELINES.glob("*.json")}
    assert all(run.pinned and run.origin == "baseline" for run in index.runs())
    recorded = [entry for path in BASELINES.glob("*train*.json") for entry in json.loads(path.read_text())["entries"]]
    entries = [entry for entry in recorded if entry["kind"] == "training run"]
    found = index.training_entries()
    assert len(found) == len(entries)
    assert [
        {name: value for name, value in entry.items() if name != "run"} for entry in found if entry["run"] == "2026-11-22-epyc2-training"
    ] == [entry for entry in entries if entry["date"].startswith("2026-11-22")]


@st.composite
def _changes(draw: st.DrawFn) -> list[tuple[str, int]]:
    return draw(st.lists(st.tuples(st.sampled_from(["add", "change", "tear", "drop", "copy"]), st.integers(0, 3)), min_size=1, max_size=5))


@settings(max_examples=12)
@given(changes=_changes())
def test_an_index_that_follows_its_files_is_the_one_that_is_made_anew(changes: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_store(folder, series=2, runs=2)
        followed = Index.open(folder, None)
        for step, (change, number) in enumerate(changes):
            run = made_run(number)
            path = folder / "runs" / f"{run.id}.json"
            if change == "add" and not path.exists():
                write_run(folder, run, [step_entry("copy", 8, [1.0 + step]), step_entry(f"SONew band {step}", 8, [2.0])])
            elif change == "change" and path.exists():
                replace(path, path.read_bytes().replace(b'"copy"', f'"copy {step}"'.encode()))
            elif change == "tear" and path.exists():
                replace(path, path.read_bytes()[: 100 + step])
            elif change == "drop":
                path.unlink(missing_ok=True)
            elif change == "copy" and path.exists():
                shutil.copy(path, folder / "runs" / "copied.json")
            followed.refresh()
        kept = everything(followed)
        reopened = everything(Index.open(folder, None))
        followed.close()
        assert kept == reopened == everything(Index.rebuild(folder, None))


def test_a_rebuilt_index_is_what_the_files_say_and_readers_see_no_gap(store: Path) -> None:
    index = Index.open(store, None)
    whole = everything(index)
    with sqlite3.connect(store / "index.sqlite") as connection:
        connection.execute("UPDATE points SET median = 1e9")
        connection.execute("INSERT INTO facts (body) VALUES ('{}')")
    connection.close()
    assert {point.median for point in Index.open(store, None).summary_points()} == {1e9}
    assert everything(Index.rebuild(store, None)) == whole
    assert everything(index) == whole, "who had it open sees the same"
    with sqlite3.connect(store / "index.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM facts WHERE body = '{}'").fetchone() == (0,)
    connection.close()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def _scribble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)


def _older(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


def _emptied(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE points")
    connection.close()


def _overwritten(path: Path) -> None:
    path.write_text("no database")


DAMAGE: list[Callable[[Path], None]] = [_cut, _scribble, _older, _emptied, _overwritten, Path.unlink]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_older_index_is_made_anew(store: Path, damage: Callable[[Path], None]) -> None:
    index = Index.open(store, None)
    whole = everything(index)
    index.close()
    damage(store / "index.sqlite")
    assert everything(Index.open(store, None)) == whole
    again = Index.open(store, None)
    assert everything(again) == whole


def test_damage_under_an_open_index_is_mended_too(store: Path) -> None:
    index = Index.open(store, None)
    whole = everything(index)
    _scribble(store / "index.sqlite")
    assert everything(index) == whole


def test_where_no_index_can_be_written_it_is_kept_in_memory(store: Path) -> None:
    (store / "index.sqlite").mkdir()
    index = Index.open(store, None)
    assert len(index.runs()) == RUNS
    assert (store / "index.sqlite").is_dir()
    (store / "file").write_text("")
    assert Index.open(store / "file" / "below", None).runs() == []


def test_processes_that_open_a_new_store_at_once_all_seeeverything(store: Path) -> None:
    command = [sys.executable, "-c", OPENER, str(store)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'perf'}:{ROOT / 'kernels'}"}
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(3)]
    said = {process.communicate(timeout=60)[0] for process in started}
    assert said == {f"{len(Index.open(store).summary_points())}\n"}


def test_pinned_runs_say_so_and_broken_pins_are_a_problem(store: Path) -> None:
    run = made_run(2).id
    write_pins(store, {run: Pin(run, "the release", BEGIN.isoformat())})
    index = Index.open(store, None)
    assert [found.id for found in index.runs() if found.pinned] == [run]
    (store / "pins.json").write_bytes(TORN)
    assert [Path(problem.path).name for problem in index.problems()] == ["pins.json"]
    assert not any(found.pinned for found in index.runs())


def test_machines_of_entries_may_differ_from_the_runs(tmp_path: Path) -> None:
    other = {**MACHINE, "device": "Another"}
    write_run(tmp_path, made_run(0), [step_entry("copy", 8, [1.0]), step_entry("copy", 8, [1.0], machine=other)])
    first, second = Index.open(tmp_path, None).series()
    assert (first.variant, second.variant, first.machine != second.machine) == ("", "", True)
