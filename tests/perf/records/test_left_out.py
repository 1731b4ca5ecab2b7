"""Files of a store that are no runs, or runs that are there twice: named and left out, everything else stays."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from sonew_perf.records.index import Index
from tests.perf.records.made import RUNS, SERIES, TORN, everything, made_run, replace, step_entry


def _ids(index: Index) -> list[str]:
    return [run.id for run in index.runs()]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_torn_file_is_a_problem_and_everything_else_stays(store: Path, share: float) -> None:
    runs = _ids(Index.open(store, None))
    path = store / "runs" / f"{runs[2]}.json"
    whole = path.read_bytes()
    replace(path, whole[: int(share * len(whole))])
    index = Index.open(store, None)
    (problem,) = index.problems()
    assert (problem.path, "not readable as JSON" in problem.reason) == (str(path), True)
    assert _ids(index) == [run for run in runs if run != runs[2]]
    assert len(index.summary_points()) == SERIES * (RUNS - 1)
    replace(path, whole)
    assert (_ids(Index.open(store, None)), Index.open(store, None).problems()) == (runs, [])


def test_hostile_files_are_problems_and_everything_else_stays(store: Path, tmp_path: Path) -> None:
    before = everything(Index.open(store, None))
    runs = store / "runs"
    hostile = step_entry("<script>alert(1)</script>", 8, [1.0])
    contents = {
        "markup": json.dumps({"schema_version": 1, "entries": [hostile]}).encode(),
        "path": json.dumps({"schema_version": 1, "run": {"id": "../../x"}, "entries": []}).encode(),
        "deep": b"[" * 10**5,
        "bytes": bytes(range(256)),
        "comparison": json.dumps({"schema_version": 1, "comparison": {}, "entries": []}).encode(),
        "half": json.dumps({"schema_version": 1, "entries": [step_entry("copy", 8, [1.0], reason="\ud800")]}).encode(),
        "half a name": json.dumps({"schema_version": 1, "entries": [step_entry("copy", 8, [1.0]) | {"\udfff": 1}]}).encode(),
        r"\udcff": b"{}",
        "<img src=x>": json.dumps({"schema_version": 1, "entries": [step_entry("copy", 8, [1.0])]}).encode(),
    }
    for name, content in contents.items():
        (runs / f"{name}.json").write_bytes(content)
    (runs / os.fsdecode(b"\xff.json")).write_text(json.dumps({"schema_version": 1, "entries": [step_entry("copy", 8, [1.0])]}))
    (runs / os.fsdecode(b"\xfe.json")).mkdir()
    (runs / "folder.json").mkdir()
    (runs / "nowhere.json").symlink_to(tmp_path / "nowhere")
    os.mkfifo(runs / "pipe.json")
    (runs / ".unfinished.json.0123.tmp").write_bytes(TORN)
    index = Index.open(store, None)
    after = everything(index)
    assert {Path(problem.path).name for problem in index.problems()} == {
        f"{name}.json" for name in (*contents, r"\udcfe", "folder", "nowhere", "pipe")
    }
    assert sum(problem.path == str(runs / r"\udcff.json") for problem in index.problems()) == 2, "one is called so, one is shown so"
    assert all(problem.reason.isprintable() and len(problem.reason) < 300 for problem in index.problems())
    for name in ("runs", "series", "points", "last"):
        assert after[name] == before[name]


def test_a_store_whose_folder_is_no_text_is_read_like_any_other(store: Path, tmp_path: Path) -> None:
    before = everything(Index.open(store, None))
    moved = store.rename(tmp_path / os.fsdecode(b"\xff"))
    (moved / "runs" / "torn.json").write_bytes(TORN)
    index = Index.open(moved, None)
    assert [index.points(one.id) for one in index.series()] == before["points"]
    assert [Path(run.path).exists() for run in index.runs()] == [True] * RUNS
    assert index.entry(index.runs()[0].id, index.series()[0].id)["kind"] == "step time"
    assert [problem.path for problem in index.problems()] == [str(tmp_path / r"\udcff" / "runs" / "torn.json")]
    (moved / "runs" / "torn.json").unlink()
    index.refresh()
    assert index.problems() == []


def test_a_committed_record_that_lies_in_the_store_too_counts_once(store: Path, tmp_path: Path) -> None:
    committed = tmp_path / "committed"
    run = made_run(1)
    shutil.copytree(store / "runs", committed)
    index = Index.open(store, committed)
    assert (len(index.runs()), index.problems()) == (RUNS, [])
    assert {found.origin for found in index.runs()} == {"baseline"}
    replace(store / "runs" / f"{run.id}.json", (committed / f"{run.id}.json").read_bytes().replace(b'"main"', b'"other"'))
    index.refresh()
    (problem,) = index.problems()
    assert (problem.path, f"committed/{run.id}.json has the same run" in problem.reason) == (str(store / "runs" / f"{run.id}.json"), True)
    assert {found.branch for found in index.runs()} == {"main"}
    (committed / f"{run.id}.json").unlink()
    index.refresh()
    assert (len(index.runs()), index.problems()) == (RUNS, [])
    assert {found.id: found.branch for found in index.runs()}[run.id] == "other"


def test_a_copy_under_another_name_is_said_and_does_not_count(tmp_path: Path) -> None:
    document = json.dumps({"schema_version": 1, "entries": [step_entry("copy", 8, [1.0])]})
    (tmp_path / "runs").mkdir()
    for name in ("first", "second"):
        (tmp_path / "runs" / f"{name}.json").write_text(document)
    index = Index.open(tmp_path, None)
    assert (_ids(index), len(index.summary_points())) == (["first"], 1)
    assert [problem.reason for problem in index.problems()] == ["runs/first.json has the same content, and is the one that counts"]
