from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sonew_autotune.trials.outcome import Failure
from sonew_perf.cli import app, suite
from sonew_perf.errors import RecordError
from sonew_perf.process import ROOT
from sonew_perf.sources import Source
from sonew_perf.suite import identity
from sonew_perf.suite.groups import Group
from sonew_perf.suite.progress import GroupProgress
from sonew_perf.suite.run import run_groups
from sonew_perf.suite.torch_process import Timed
from tests.perf.records.made import read_run
from tests.perf.suite.made import GROUPS, Play, call, good, points_of, runs_of, timed


def test_a_run_is_kept_where_the_store_is_and_the_next_one_shows_its_ratios(play: Play, store: Path) -> None:
    play(good)
    first = call("--label", "before")
    assert first.exit_code == 0, first.output
    (path,) = runs_of(store)
    assert f"Written to {path}" in first.stdout
    assert "sonew-perf dashboard" in first.stdout
    assert "[2/2] phases/torch/cpu/3000/float32/bands-1: about" in first.stderr
    kept, series, points = read_run(path, origin="store")
    assert (kept.label, kept.command.split()[0], kept.machine.type) == ("before", "sonew-perf", "cpu")
    assert kept.seconds is not None
    assert {one.kernel for one in series} == {"step", "prologue", "direction", "norms", "update"}
    assert {point.status for point in points} == {"done"}
    play(lambda group: Timed(timed(group, ratio=3.0), {}))
    second = call("--only", "step/*")
    rows = [line.split() for line in second.stdout.splitlines()]
    row = next(row for row in rows if row[:3] == ["SONew", "band", "1"])
    assert row[5:9] == ["3.00", "[3.00,", "3.00]", "2.00"]  # now, and stored


def test_once_measures_what_these_sources_were_not_measured_in(play: Play, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(commit="a" * 40, modified=True, diff="b" * 12)
    monkeypatch.setattr(identity, "read_source", lambda _root: source)
    play(good)
    assert call("--only", "step/*", "--once").exit_code == 0
    assert call("--once").exit_code == 0
    groups = [{entry["group"] for entry in json.loads(path.read_text())["entries"]} for path in runs_of(store)]
    assert sorted(groups, key=str) == sorted([{GROUPS[0].name}, {GROUPS[1].name}], key=str)
    again = call("--once")
    assert (again.exit_code, "measured already" in again.stderr, len(runs_of(store))) == (0, True, 2)
    assert "--once" not in read_run(runs_of(store)[0], origin="store")[0].command  # which does it again
    source = Source(commit="a" * 40, modified=True, diff="c" * 12)  # edited since
    assert call("--once", "--only", "step/*").exit_code == 0
    source = Source()  # of unknown sources nobody knows whether they were measured
    assert call("--once", "--only", "step/*").exit_code == call("--once", "--only", "step/*").exit_code == 0
    assert len(runs_of(store)) == 5


def test_once_repeats_no_failure_and_measures_what_was_skipped_when_it_can(
    play: Play, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "read_source", lambda _root: Source(commit="a" * 40, modified=False))
    play(lambda _: Failure("crash", "signal 11"))
    assert call("--only", "step/*", "--once").exit_code == 1
    play(lambda group: pytest.fail("measured again") if group.what == "step" else good(group))
    again = call("--only", "step/*", "--once")
    assert (again.exit_code, "measured already" in again.stderr) == (0, True)
    assert f"Again: sonew-perf run --only {GROUPS[0].name}" in again.stderr
    monkeypatch.setattr(suite, "run_groups", functools.partial(run_groups, free=lambda _: 0))
    assert call("--only", "phases/*", "--once").exit_code == 0
    assert {point.status for path in runs_of(store) for point in points_of(path)} == {"failed", "skipped"}
    monkeypatch.setattr(suite, "why_not", lambda *_: "still no memory")
    assert call("--only", "phases/*", "--once").exit_code == 0
    assert len(runs_of(store)) == 2
    play(good)
    monkeypatch.setattr(suite, "why_not", lambda *_: None)
    assert call("--only", "phases/*", "--once").exit_code == 0
    assert len(runs_of(store)) == 3


def test_ctrl_c_keeps_the_groups_that_are_done(play: Play, store: Path) -> None:
    def interrupted(group: Group) -> Timed:
        if group.what == "phases":
            raise KeyboardInterrupt
        return good(group)

    play(interrupted)
    result = call()
    assert (result.exit_code, "interrupted after 1 of 2 groups" in result.stderr) == (130, True)
    (path,) = runs_of(store)
    assert {entry["group"] for entry in json.loads(path.read_text())["entries"]} == {GROUPS[0].name}
    play(lambda group: interrupted(group) if group.what == "phases" else interrupted(GROUPS[1]))
    assert call().exit_code == 130
    assert runs_of(store) == [path]  # nothing was measured: nothing is written


def test_whatever_ends_a_run_the_groups_that_are_done_are_kept(play: Play, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_self: object, group: Group) -> None:
        if group.what == "phases":
            raise BlockingIOError(11, "the terminal is stuck")

    play(good)
    monkeypatch.setattr(GroupProgress, "begin", lost)
    result = call()
    assert (result.exit_code, "the terminal is stuck" in result.stderr) == (2, True)
    assert {entry["group"] for entry in json.loads(runs_of(store)[0].read_text())["entries"]} == {GROUPS[0].name}


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--size", "500", "--band", "0", "--no-reference")])
def test_who_stops_reading_loses_no_run(
    arguments: tuple[str, ...], play: Play, store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    play(good)
    monkeypatch.setattr(suite, "measure_one", lambda *_, **__: [entry | {"load_before": 0.1} for entry in timed(GROUPS[0])])
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as broken, (tmp_path / "errors").open("w") as errors:
        monkeypatch.setattr(sys, "stdout", broken)
        monkeypatch.setattr(sys, "stderr", errors)
        with pytest.raises(SystemExit) as ended:
            app(["run", *arguments])
    assert ended.value.code == 141, (tmp_path / "errors").read_text()
    assert "Traceback" not in (tmp_path / "errors").read_text()
    assert {point.status for point in points_of(runs_of(store)[0])} == {"done"}


@pytest.mark.parametrize("one", [(), ("--size", "500")])
def test_what_could_not_be_kept_is_not_measured(one: tuple[str, ...], play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(lambda _: pytest.fail("it was measured"))
    monkeypatch.setattr(suite, "measure_one", lambda *_, **__: pytest.fail("it was measured"))
    (tmp_path / "file").touch()
    refusals = {
        ("--store", str(tmp_path / "file" / "below")): "Pass --store or set SONEW_PERF_STORE",
        ("--output", str(tmp_path / "file" / "below.json")): "Pass a writable --output",
        ("--output", str(tmp_path)): "is a folder. Pass a writable --output",
        ("--label", "a" * 20001): "of 20001 characters is not allowed: at most 300",
    }
    for arguments, said in refusals.items():
        result = call(*one, *arguments)
        assert (result.exit_code, said in " ".join(result.output.replace("│", " ").split())) == (2, True), result.output
    monkeypatch.setattr(sys, "argv", ["sonew-perf", "run", *["--only", "step/*"] * 2000])
    long = call(*one)
    assert (long.exit_code, "command has" in long.output, "Shorten the command line" in long.output) == (2, True, True)


def test_what_cannot_be_kept_after_all_is_printed(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> list[Path]:
        msg = "the disk is full"
        raise RecordError(msg)

    play(good)
    monkeypatch.setattr(suite, "keep", full)
    result = call("--only", "step/*")
    assert (result.exit_code, "SONew band 1" in result.stdout, "the disk is full" in result.stderr) == (2, True, True)


def test_a_file_can_take_the_stores_place_and_json_is_the_same_text(play: Play, store: Path, tmp_path: Path) -> None:
    play(good)
    path = tmp_path / "named.json"
    printed = call("--output", path, "--json")
    assert printed.exit_code == 0, printed.output
    assert printed.stdout == path.read_text()
    assert read_run(path, origin="baseline")[0].id == "named"
    assert runs_of(store) == []
    assert call("--no-store").exit_code == 0
    assert runs_of(store) == []
    assert call("--output", path, "--store", tmp_path / "other").exit_code == 0
    assert len(runs_of(tmp_path / "other")) == 1
    blocked = call("--output", path / "below.json")
    assert (blocked.exit_code, "Pass a writable --output" in blocked.output) == (2, True)


@pytest.mark.parametrize(("code", "opened"), [(0, True), (1, True), (2, False), (70, False)])
def test_make_dashboard_opens_the_pages_though_a_case_failed(code: int, opened: bool, tmp_path: Path) -> None:
    make = shutil.which("make")
    assert make is not None
    program = tmp_path / ".venv" / "bin" / "sonew-perf"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\necho "$@" >> said\n[ "$1" = dashboard ] || exit {code}\n')
    program.chmod(0o755)
    stamp = ".venv/.installed"
    (tmp_path / stamp).touch()
    command = [make, "-f", str(ROOT / "Makefile"), "-o", stamp, "dashboard"]
    environment = {"PATH": os.environ["PATH"]}  # not what a make around this test passes on
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, env=environment)
    assert (tmp_path / "said").read_text().splitlines() == ["run --once"] + ["dashboard"] * opened
    assert (done.returncode == 0) == opened
