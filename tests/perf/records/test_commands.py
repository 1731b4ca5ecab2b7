from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from sonew_perf.cli import records
from sonew_perf.records.index import Index
from sonew_perf.records.runs import read_pins, write_run
from tests.perf.records.made import made_run, step_entry

APP = typer.Typer()
for command in (records.runs, records.pin, records.unpin, records.gc, records.export):
    APP.command()(command)
IDS = [made_run(number).id for number in range(4)]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four runs, the second labelled, and a hostile file."""
    folder = tmp_path / "store"
    for number in range(4):
        label = "\x1b[31m[bold]mine" if number == 1 else ""
        write_run(folder, made_run(number, label=label), [step_entry("copy", 8, [1.0]), step_entry("SONew band 1", 8, [2.0])])
    (folder / "runs" / "torn.json").write_text('{"schema_version": 1,')
    monkeypatch.setenv("SONEW_PERF_STORE", str(folder))
    monkeypatch.setenv("COLUMNS", "200")
    return folder


def _call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(APP, [str(argument) for argument in arguments])


def test_runs_are_listed_with_what_was_left_out_and_nothing_foreign_reaches_the_terminal(store: Path) -> None:
    shown = _call("runs")
    assert shown.exit_code == 0, shown.output
    assert all(run in shown.output for run in IDS)
    assert ("\x1b" in shown.output, r"\x1b[31m[bold]mine" in shown.output) == (False, True)
    assert f"Left out: {store}/runs/torn.json: not readable as JSON" in shown.output
    entries = json.loads(_call("runs", "--json").stdout)["entries"]
    own = [entry for entry in entries if entry["origin"] == "store"]
    assert [entry["id"] for entry in own] == IDS
    assert {(entry["points"], entry["failed"], entry["machine"]["device"]) for entry in own} == {(2, 0, "AMD EPYC")}


def test_a_pinned_run_outlives_gc_and_an_unpinned_one_does_not(store: Path) -> None:
    assert _call("pin", IDS[0], "--note", "the release").exit_code == 0
    assert read_pins(store)[IDS[0]].note == "the release"
    looked = _call("gc", "--keep-last", "1")
    assert looked.exit_code == 0, looked.output
    assert f"{IDS[2]}: would be dropped" in looked.output
    assert "3 stay (1 pinned, 1 labelled, 1 among the last 1 of its machine)" in looked.output
    assert "pass --yes" in looked.output
    assert len(list((store / "runs").glob("*.json"))) == 5
    done = _call("gc", "--keep-last", "1", "--yes", "--json")
    (entry,) = json.loads(done.stdout)["entries"]
    assert (entry["run"], entry["dropped"], entry["bytes"] > 0) == (IDS[2], True, True)
    assert [run.id for run in Index.open(store, None).runs()] == [IDS[0], IDS[1], IDS[3]]
    assert _call("unpin", IDS[0]).exit_code == 0
    assert f"{IDS[0]}: dropped" in _call("gc", "--keep-last", "1", "--yes").output
    assert [run.id for run in Index.open(store, None).runs()] == [IDS[1], IDS[3]]


def test_another_store_is_named_by_option(store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_run(other, made_run(9), [step_entry("copy", 8, [1.0])])
    listed = json.loads(_call("runs", "--json", "--store", other).stdout)["entries"]
    assert [entry["id"] for entry in listed if entry["origin"] == "store"] == [made_run(9).id]
    assert _call("pin", made_run(9).id, "--store", other).exit_code == 0
    assert (set(read_pins(other)), read_pins(store)) == ({made_run(9).id}, {})


def test_points_are_exported_to_the_terminal_or_a_file(store: Path, tmp_path: Path) -> None:
    printed = _call("export", "--series", "SONew band 1: step, one tensor, 8 ")
    assert printed.exit_code == 0, printed.output
    assert [line.split(",")[0] for line in printed.stdout.splitlines()] == ["run", *IDS]
    path = tmp_path / "deep" / "points.json"
    assert _call("export", "--format", "json", "--output", path, "--series", "tensor, 8 elements").exit_code == 0
    assert len(json.loads(path.read_text())["entries"]) == 8
    assert _call("export", "--format", "asv", "--output", tmp_path / "asv", "--store", store).exit_code == 0
    assert (tmp_path / "asv" / "benchmarks.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pin", "nothing"), "run 'nothing' is none of the"),
        (("unpin", IDS[0]), "there are none"),
        (("gc",), "keep-last"),
        (("gc", "--keep-last", "0"), "keep-last"),
        (("export", "--format", "xml"), "'xml' is not one of"),
        (("export", "--format", "asv"), "Pass --output FOLDER"),
        (("export", "--series", "nothing"), "series='nothing' is in the title of none"),
    ],
)
@pytest.mark.usefixtures("store")
def test_wrong_use_is_exit_code_2_and_says_why(arguments: tuple[str, ...], said: str) -> None:
    result = _call(*arguments)
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.output.replace("│", " ").split())


def test_a_store_that_cannot_be_there_leaves_the_committed_records(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    entries = json.loads(_call("runs", "--json", "--store", tmp_path / "file").stdout)["entries"]
    assert {entry["origin"] for entry in entries} == {"baseline"}


@pytest.mark.usefixtures("store")
def test_broken_pins_stop_gc_and_pinning_with_exit_code_2(store: Path) -> None:
    (store / "pins.json").write_text("{")
    for arguments in (("gc", "--keep-last", "1", "--yes"), ("pin", IDS[0]), ("unpin", IDS[0])):
        result = _call(*arguments)
        assert (result.exit_code, "is no list of pinned runs" in result.output) == (2, True)
    assert len(list((store / "runs").glob("*.json"))) == 5
