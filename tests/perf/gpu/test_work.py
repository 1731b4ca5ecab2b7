from __future__ import annotations

from pathlib import Path

import pytest

from sonew_autotune.store.journal import LockedError
from sonew_perf.errors import RecordError
from sonew_perf.gpu.outcome import Outcome
from sonew_perf.gpu.work import WorkFile

DONE = Outcome(status="done", reason="12 passed", result={"entries": [1, {"a": None}]})


def test_finished_units_are_read_back_and_a_later_line_replaces_an_earlier_one(tmp_path: Path) -> None:
    work = WorkFile(tmp_path / "deep" / "folder", "key")
    with work.held():
        assert work.read() == {}
        kept = work.append("one", DONE, 1.234)
        work.append("two", Outcome(status="failed", reason="out of memory"), 2.0)
        again = work.append("two", DONE, 3.0)
        assert work.read() == {"one": kept, "two": again}
    assert (kept.outcome, kept.seconds) == (DONE, 1.2)
    work.forget()
    assert work.read() == {}


def test_a_kill_inside_a_line_costs_that_line_only(tmp_path: Path) -> None:
    work = WorkFile(tmp_path, "key")
    with work.held():
        work.append("one", DONE, 1.0)
        work.append("two", DONE, 1.0)
    work.path.write_bytes(work.path.read_bytes()[:-20])
    with work.held():
        assert list(work.read()) == ["one"]
        work.append("three", DONE, 1.0)
        assert list(work.read()) == ["one", "three"]


def test_two_runs_do_not_share_a_machine(tmp_path: Path) -> None:
    with WorkFile(tmp_path, "key").held(), pytest.raises(LockedError), WorkFile(tmp_path, "key").held():
        pass


@pytest.mark.parametrize(
    "line", ["{}", "not json", "[]", '{"schema_version": 2, "unit": "a", "outcome": {"status": "done"}, "seconds": 1, "date": ""}']
)
def test_a_foreign_line_is_refused_with_its_place_and_the_fix(tmp_path: Path, line: str) -> None:
    work = WorkFile(tmp_path, "key")
    work.path.write_text(line + "\n")
    with pytest.raises(RecordError, match=r"key.jsonl, line 1 .*--fresh"):
        work.read()


def test_a_folder_that_cannot_be_made_is_an_error_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match="SONEW_STATE_DIR"), WorkFile(tmp_path / "file" / "folder", "key").held():
        pass
