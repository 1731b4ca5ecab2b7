from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from sonew_perf.cli import records
from sonew_perf.records.index import Index
from sonew_perf.records.runs import changing, read_pins, write_run
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


@pytest.mark.parametrize("terminal", [False, True])
def test_ids_are_whole_however_narrow_the_console_is(store: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    longest = "x" * 128
    write_run(store, made_run(5, id=longest, label="a long label of several words " * 5), [])
    monkeypatch.setenv("COLUMNS", "40")
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    lines = _call("runs").stdout.splitlines()
    assert {line.split()[-1] for line in lines if line.split()} >= {*IDS, longest}
    (own,) = (line for line in lines if line.endswith(IDS[0]))
    assert len(own) > 40, "the label was squeezed, not the id"
    assert not any(line.endswith(" ") for line in lines)


def test_a_hostile_file_breaks_no_command(store: Path) -> None:
    half = step_entry("copy", 8, [], status="failed", reason="\ud800")
    (store / "runs" / "half.json").write_text(json.dumps({"schema_version": 1, "entries": [half]}))
    (store / "runs" / os.fsdecode(b"\xff.json")).write_text("{}")
    shown = _call("runs")
    assert shown.exit_code == 0, shown.output
    assert f"{store}/runs/half.json: not readable as JSON (a text has '\\ud800', half of a character)" in shown.output
    assert f"{store}/runs/\\udcff.json: " in shown.output
    for arguments in (("runs", "--json"), ("export",), ("pin", IDS[0]), ("gc", "--keep-last", "1"), ("unpin", IDS[0])):
        assert _call(*arguments).exit_code == 0, arguments


def test_the_index_is_made_anew_at_will(store: Path) -> None:
    assert "anew" not in _call("runs").stderr
    index = Index.open(store)
    made = f"{len(index.runs())} runs, {len(index.series())} series, {len(index.summary_points())} points."
    result = _call("runs", "--rebuild", "--json")
    assert result.stderr.startswith("The index was made anew in ")
    assert result.stderr.splitlines()[0].endswith(f" s: {made}")
    assert {run.id for run in index.runs()} == {entry["id"] for entry in json.loads(result.stdout)["entries"]}


@pytest.mark.parametrize("note", ["x" * 20_001, "caf\udce9"])
def test_a_note_that_could_not_be_read_again_is_refused_and_the_pins_stay(store: Path, note: str) -> None:
    assert _call("pin", IDS[0], "--note", "why").exit_code == 0
    refused = _call("pin", IDS[1], "--note", note)
    assert (refused.exit_code, "the note" in refused.output) == (2, True)
    assert set(read_pins(store)) == {IDS[0]}
    assert _call("unpin", IDS[0]).exit_code == 0


def test_a_run_that_is_dropped_before_the_pins_are_held_is_not_pinned(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def late(folder: Path) -> Iterator[None]:
        with changing(folder):
            (store / "runs" / f"{IDS[0]}.json").unlink()  # what gc did while it held them
            yield

    monkeypatch.setattr(records, "changing", late)
    result = _call("pin", IDS[0])
    assert (result.exit_code, "is none of the" in result.output) == (2, True)
    assert read_pins(store) == {}


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
    assert printed.stderr == "4 points of 4 runs.\n"
    path = tmp_path / "deep" / "points.json"
    assert _call("export", "--format", "json", "--output", path, "--series", "tensor, 8 elements").exit_code == 0
    assert len(json.loads(path.read_text())["entries"]) == 8
    assert _call("export", "--format", "asv", "--output", tmp_path / "asv", "--store", store).exit_code == 0
    assert (tmp_path / "asv" / "benchmarks.json").exists()


def test_an_export_without_runs_says_so(tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_run(other, made_run(7, commit=""), [step_entry("alone", 8, [1.0])])
    result = _call("export", "--format", "asv", "--output", tmp_path / "asv", "--series", "alone", "--store", other)
    assert (result.exit_code, result.stderr) == (0, "0 points of 0 runs. asv wants a commit, and none of these runs has one.\n")
    assert _call("export", "--format", "otava-csv", "--series", "alone", "--store", other).stderr == "1 points of 1 runs.\n"


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
