from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import platformdirs
import pytest

from sonew_perf.errors import RecordError
from sonew_perf.process import ROOT
from sonew_perf.records.index import Index
from sonew_perf.records.runs import BASELINES, Pin, changing, new_run_id, read_pins, store_folder, write_pins, write_run
from tests.perf.records.made import BEGIN, made_run, step_entry

WRITER = """
import itertools, json, sys
from pathlib import Path
from sonew_perf.records.model import Machine, Run
from sonew_perf.records.runs import write_run
folder, attempt, entries = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
machine = Machine(id="", device="AMD EPYC", type="cpu", threads=2)
for number in itertools.count():
    run = Run(id=f"{attempt}-{number}", date="2026-01-01T00:00:00+00:00", machine=machine)
    write_run(folder, run, entries)
    print(run.id, flush=True)
"""


def test_the_store_is_where_the_variable_or_the_platform_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SONEW_PERF_STORE", raising=False)
    assert store_folder() == Path(platformdirs.user_data_dir("sonew")) / "perf"
    monkeypatch.setenv("SONEW_PERF_STORE", str(tmp_path))
    assert store_folder() == tmp_path
    assert BASELINES == ROOT / "perf" / "baselines"


def test_ids_sort_by_date_whatever_the_zone_and_do_not_collide() -> None:
    moments = [BEGIN, BEGIN + timedelta(seconds=1), (BEGIN + timedelta(hours=1)).astimezone(timezone(timedelta(hours=-9)))]
    ids = [new_run_id(moment) for moment in moments]
    assert ids == sorted(ids)
    assert ids[2].startswith("20260101T130000Z-")
    assert len({new_run_id(BEGIN) for _ in range(100)}) == 100


def test_a_run_is_never_written_over(tmp_path: Path) -> None:
    path = write_run(tmp_path, made_run(0), [step_entry("copy", 8, [1.0])])
    before = path.read_bytes()
    with pytest.raises(RecordError, match="exists, and a run is never written over"):
        write_run(tmp_path, made_run(0), [])
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("identity", ["../x", "", "a/b", ".hidden", "x" * 200, "a\n"])
def test_an_id_that_is_no_file_name_is_refused(tmp_path: Path, identity: str) -> None:
    with pytest.raises(RecordError, match="it must be letters, digits"):
        write_run(tmp_path, made_run(0, id=identity), [])
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named_with_the_fix(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(RecordError, match="SONEW_PERF_STORE"):
        write_run(blocked, made_run(0), [])
    with pytest.raises(RecordError, match="SONEW_PERF_STORE"):
        write_pins(blocked, {})
    with pytest.raises(RecordError, match="SONEW_PERF_STORE"), changing(blocked):
        pass


def test_pins_come_back_and_broken_ones_are_refused(tmp_path: Path) -> None:
    assert read_pins(tmp_path) == {}
    pins = {name: Pin(name, note, datetime(2026, 1, 2, tzinfo=UTC).isoformat()) for name, note in (("a", "<i>why</i>"), ("b", ""))}
    write_pins(tmp_path, pins)
    assert read_pins(tmp_path) == pins
    for content in ("{", "[]", '{"schema_version": 2}', '{"schema_version": 1, "entries": [{"note": "x"}]}'):
        (tmp_path / "pins.json").write_text(content)
        with pytest.raises(RecordError, match=r"pins\.json is no list of pinned runs.*Mend it or move it away"):
            read_pins(tmp_path)


@pytest.mark.parametrize(("note", "said"), [("x" * 20_001, "note has 20001 characters"), ("caf\udce9", "no UTF-8")])
def test_pins_that_could_not_be_read_again_are_not_written(tmp_path: Path, note: str, said: str) -> None:
    write_pins(tmp_path, {"a": Pin("a", "x" * 20_000)})
    before = read_pins(tmp_path)
    with pytest.raises(RecordError, match=said):
        write_pins(tmp_path, {**before, "b": Pin("b", note)})
    with pytest.raises(RecordError, match="run id has 301 characters"):
        write_pins(tmp_path, {"x" * 301: Pin("x" * 301)})
    assert read_pins(tmp_path) == before


def test_a_run_whose_words_have_foreign_bytes_can_be_read_again(tmp_path: Path) -> None:
    run = made_run(0, label="caf\udce9", command="sonew-perf run --label 'caf\udce9 \N{GRINNING FACE}'")
    write_run(tmp_path, run, [step_entry("copy", 8, [0.1], status="failed", reason="no file \udcff")])
    index = Index.open(tmp_path, None)
    ((found,), (point,)) = index.runs(), index.summary_points()
    assert (found.label, found.command) == ("caf?", "sonew-perf run --label 'caf? \N{GRINNING FACE}'")
    assert (point.reason, index.problems()) == ("no file ?", [])


def test_a_writer_that_is_killed_leaves_whole_runs_only(tmp_path: Path) -> None:
    rng = random.Random(7)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'perf'}:{ROOT / 'kernels'}"}
    entries = [step_entry(f"SONew band {band}", 8, [1.0] * 15) for band in range(100)]
    written: list[str] = []
    for attempt in range(8):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(attempt), json.dumps(entries)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            written += [process.stdout.readline().strip() for _ in range(rng.randrange(1, 6))]
            for _ in range(rng.randrange(20_000)):  # into the middle of the next one
                pass
            process.kill()
            written += process.stdout.read().splitlines()
    index = Index.open(tmp_path, None)
    assert index.problems() == []
    found = {run.id for run in index.runs()}
    assert set(written) <= found, "what was said to be written is there"
    assert len(found) <= len(written) + 8
    assert len(index.summary_points()) == 100 * len(found)
    assert {path.suffix for path in (tmp_path / "runs").iterdir()} <= {".json", ".tmp"}
