from __future__ import annotations

import csv
import io
import json
import statistics
from pathlib import Path

import pytest

from sonew_perf.errors import RecordError
from sonew_perf.records import asv
from sonew_perf.records.exporting import COLUMNS, Exported, chosen, safe_cell, to_csv, to_json, to_otava
from sonew_perf.records.index import Index
from sonew_perf.records.runs import write_run
from tests.perf.records.made import fake_commit, made_run, step_entry

SAMPLES = [3.0, 1.0, 2.0, 4.0]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Two runs of a step, the second with a failure and memory; a third one without a commit."""
    write_run(tmp_path, made_run(0), [step_entry("copy", 8, SAMPLES), step_entry("=SUM(A1)", 8, [1.0])])
    failed = step_entry("=SUM(A1)", 8, [], samples_ms=None, status="failed", reason="-1+1|cmd")
    write_run(
        tmp_path, made_run(1), [step_entry("copy", 8, [2.0], {"copy": {"median": 1.0, "low": 1.0, "high": 1.0}}, peak_bytes=64), failed]
    )
    write_run(tmp_path, made_run(2, commit="", label="@me"), [step_entry("copy", 8, [9.0])])
    return Index.open(tmp_path, None)


def _lines(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_has_a_line_per_point_whose_numbers_are_the_records(index: Index) -> None:
    exported = to_csv(index)
    lines = _lines(exported.text)
    assert tuple(lines[0]) == COLUMNS
    assert (exported.runs, exported.points, len(lines)) == (3, 6, 6)
    copies = [line for line in lines if line["case"] == "copy" and line["measure"] == "time"]
    assert [line["run"] for line in copies] == [made_run(number).id for number in range(3)]
    assert [line["commit"] for line in copies] == [fake_commit(0), fake_commit(1), ""]
    assert [float(line["median"]) for line in copies] == [statistics.median(SAMPLES), 2.0, 9.0]
    low, _, high = statistics.quantiles(SAMPLES, n=4, method="inclusive")
    assert (float(copies[0]["q1"]), float(copies[0]["q3"]), copies[0]["n"], copies[0]["unit"]) == (low, high, "4", "ms")
    assert {line["series"] for line in copies} == {one.id for one in chosen(index, "copy: step*torch") if one.unit == "ms"}


def test_no_cell_is_a_formula(index: Index) -> None:
    text = to_csv(index).text
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in csv.reader(io.StringIO(text)) for cell in row)
    (failed,) = (line for line in _lines(text) if line["status"] == "failed")
    assert (failed["case"], failed["reason"], failed["median"], failed["n"]) == ("'=SUM(A1)", "'-1+1|cmd", "", "0")
    assert [safe_cell(value) for value in ("@x", "\tx", "a=b", 0.5, None, "\r1")] == ["'@x", "'\tx", "a=b", "0.5", "", "'\r1"]


def test_json_has_the_samples_too(index: Index) -> None:
    exported = to_json(index, "copy")
    document = json.loads(exported.text)
    assert (exported.runs, exported.points, len(document["entries"])) == (3, 4, 4)
    assert document["schema_version"] == 1
    timed = [entry for entry in document["entries"] if entry["unit"] == "ms"]
    assert [entry["samples"] for entry in timed] == [SAMPLES, [2.0], [9.0]]
    assert timed[1]["against"] == {"copy": {"median": 1.0, "low": 1.0, "high": 1.0}}
    assert timed[1]["facts"]["repetitions"] == 8


@pytest.mark.parametrize(("pattern", "cases"), [("", 3), ("COPY", 2), ("copy*memory", 1), ("sum?a1?", 1), ("nothing", 0)])
def test_series_are_chosen_by_words_or_patterns(index: Index, pattern: str, cases: int) -> None:
    assert len(chosen(index, pattern)) == cases


def test_a_series_is_chosen_by_its_id(index: Index) -> None:
    for series in index.series():
        assert chosen(index, series.id) == [series]


def test_otava_gets_a_line_per_run_without_gaps(index: Index) -> None:
    step = next(one for one in chosen(index, "copy") if one.unit == "ms")
    exported = to_otava(index, step.id)
    header, *rows = csv.reader(io.StringIO(exported.text))
    assert (exported.runs, exported.points) == (3, 3)
    assert header == ["time", "run", "commit", f"{step.title} [ms] {step.id}"]
    assert [float(row[3]) for row in rows] == [2.5, 2.0, 9.0]
    assert [row[0] for row in rows] == [made_run(number).date for number in range(3)]
    assert [row[1] for row in csv.reader(io.StringIO(to_otava(index, "copy").text))] == ["run", made_run(1).id]
    with pytest.raises(RecordError, match=r"no run has all of the 3 series.*--series"):
        to_otava(index)


def test_asv_gets_its_own_folder_of_results(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "asv"
    assert asv.write(index, folder) == Exported(runs=2, points=5), "the run without a commit has no place there"
    benchmarks = json.loads((folder / "benchmarks.json").read_text())
    assert benchmarks.pop("version") == 2
    assert {name: about["name"] for name, about in benchmarks.items()} == {name: name for name in benchmarks}
    assert {about["unit"] for about in benchmarks.values()} == {"seconds", "bytes"}
    machine = made_run(0).machine
    told = json.loads((folder / machine.id / "machine.json").read_text())
    assert (told["version"], told["machine"], told["cpu"]) == (1, machine.id, machine.device)
    files = sorted((folder / machine.id).glob("*-sonew-perf.json"))
    assert [file.name for file in files] == sorted(f"{fake_commit(number)[:8]}-sonew-perf.json" for number in range(2))
    result = json.loads((folder / machine.id / f"{fake_commit(0)[:8]}-sonew-perf.json").read_text())
    assert (result["version"], result["commit_hash"], result["params"]["machine"]) == (2, fake_commit(0), machine.id)
    copy = asv.benchmark_name(next(one for one in chosen(index, "copy") if one.unit == "ms"))
    row = dict(zip(result["result_columns"], result["results"][copy], strict=True))
    assert row["result"] == pytest.approx([0.0025])
    assert (row["samples"], row["params"], row["stats_repeat"]) == ([[0.003, 0.001, 0.002, 0.004]], [], [4])
    assert result["results"].keys() < benchmarks.keys()


def test_of_several_runs_of_a_commit_asv_gets_the_newest_of_the_commit_itself(tmp_path: Path) -> None:
    for number in (1, 3, 2, 4):
        run = made_run(number, commit=fake_commit(0), modified=number == 4)
        write_run(tmp_path, run, [step_entry("copy", 8, [float(number)])])
    assert asv.write(Index.open(tmp_path, None), tmp_path / "asv") == Exported(runs=1, points=1)
    (path,) = (tmp_path / "asv").glob("*/*-sonew-perf.json")
    ((row),) = json.loads(path.read_text())["results"].values()
    assert row[0] == pytest.approx([0.003])
