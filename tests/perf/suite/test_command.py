from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sonew_autotune.trials.outcome import Failure
from sonew_perf.cli import app, suite
from sonew_perf.errors import RecordError
from sonew_perf.records.index import Index
from sonew_perf.records.model import Point
from sonew_perf.records.reading import read_run
from sonew_perf.sources import Source
from sonew_perf.suite import identity
from sonew_perf.suite.groups import Group
from sonew_perf.suite.run import run_groups
from sonew_perf.suite.torch_process import Timed
from tests.perf.suite.made import phase_group, step_group, timed

Play = Callable[[Callable[[Group], Timed | Failure]], None]
GROUPS = [step_group(1), phase_group(1)]


def _call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["run", *(str(argument) for argument in arguments)])


def _good(group: Group) -> Timed:
    return Timed(timed(group), {})


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Two small groups whose processes are replaced by a function; no GPU is seen."""

    def install(answer: Callable[[Group], Timed | Failure]) -> None:
        faked = functools.partial(run_groups, runner=lambda group, _rounds, _seconds: answer(group), free=lambda _: None)
        monkeypatch.setattr(suite, "run_groups", faked)
        monkeypatch.setattr(suite, "all_groups", lambda: GROUPS)
        monkeypatch.setattr(suite, "gpus_seen", list)

    return install


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's store of this test."""
    monkeypatch.setenv("SONEW_PERF_STORE", str(tmp_path / "perf"))
    return tmp_path / "perf"


def _runs(store: Path) -> list[Path]:
    return sorted((store / "runs").glob("*.json"))


def _points(path: Path) -> Sequence[Point]:
    return read_run(path, origin="store")[2]


def test_a_run_is_kept_where_the_store_is_and_the_next_one_shows_its_ratios(play: Play, store: Path) -> None:
    play(_good)
    first = _call("--label", "before")
    assert first.exit_code == 0, first.output
    (path,) = _runs(store)
    assert f"Written to {path}" in first.stdout
    assert "sonew-perf dashboard" in first.stdout
    assert "[2/2] phases/torch/cpu/3000/float32/bands-1: about" in first.stderr
    run, series, points = read_run(path, origin="store")
    assert (run.label, run.command.split()[0], run.machine.type) == ("before", "sonew-perf", "cpu")
    assert run.seconds is not None
    assert {one.kernel for one in series} == {"step", "prologue", "direction", "norms", "update"}
    assert {point.status for point in points} == {"done"}
    play(lambda group: Timed(timed(group, ratio=3.0), {}))
    second = _call("--only", "step/*")
    rows = [line.split() for line in second.stdout.splitlines()]
    row = next(row for row in rows if row[:3] == ["SONew", "band", "1"])
    assert row[5:9] == ["3.00", "[3.00,", "3.00]", "2.00"]  # now, and stored


def test_once_measures_what_these_sources_were_not_measured_in(play: Play, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(commit="a" * 40, modified=True, diff="b" * 12)
    monkeypatch.setattr(identity, "read_source", lambda _root: source)
    play(_good)
    assert _call("--only", "step/*", "--once").exit_code == 0
    assert _call("--once").exit_code == 0
    groups = [{entry["group"] for entry in json.loads(path.read_text())["entries"]} for path in _runs(store)]
    assert sorted(groups, key=str) == sorted([{GROUPS[0].name}, {GROUPS[1].name}], key=str)
    again = _call("--once")
    assert (again.exit_code, "measured already" in again.stderr, len(_runs(store))) == (0, True, 2)
    source = Source(commit="a" * 40, modified=True, diff="c" * 12)  # edited since
    assert _call("--once", "--only", "step/*").exit_code == 0
    source = Source()  # of unknown sources nobody knows whether they were measured
    assert _call("--once", "--only", "step/*").exit_code == _call("--once", "--only", "step/*").exit_code == 0
    assert len(_runs(store)) == 5


def test_a_case_that_is_wrong_is_exit_code_1_and_a_result_without_samples(play: Play, store: Path) -> None:
    play(lambda group: Timed(timed(group)[:-1], {"SONew band 1": "wrong: off by \x1b[31mone"}) if group.what == "step" else _good(group))
    result = _call()
    assert result.exit_code == 1
    assert "wrong: off by \\x1b[31mone" in result.stdout
    failed = [point for point in _points(_runs(store)[0]) if point.status == "failed"]
    assert [(point.reason, point.samples) for point in failed] == [("wrong: off by \x1b[31mone", ())]
    assert "8 results: 7 done, 1 failed" in result.stdout


def test_a_process_that_dies_costs_its_group_only(play: Play, store: Path) -> None:
    play(lambda group: Failure("crash", "the worker process died (signal 9)") if group.what == "step" else _good(group))
    assert _call().exit_code == 1
    statuses = [point.status for point in _points(_runs(store)[0])]
    assert (statuses.count("failed"), statuses.count("done")) == (4, 8)  # four phases, each with its peak memory


def test_ctrl_c_keeps_the_groups_that_are_done(play: Play, store: Path) -> None:
    def interrupted(group: Group) -> Timed:
        if group.what == "phases":
            raise KeyboardInterrupt
        return _good(group)

    play(interrupted)
    result = _call()
    assert (result.exit_code, "interrupted after 1 of 2 groups" in result.stderr) == (130, True)
    (path,) = _runs(store)
    assert {entry["group"] for entry in json.loads(path.read_text())["entries"]} == {GROUPS[0].name}
    play(lambda group: interrupted(group) if group.what == "phases" else interrupted(GROUPS[1]))
    assert _call().exit_code == 130
    assert _runs(store) == [path]  # nothing was measured: nothing is written


def test_skips_are_exit_code_0(play: Play, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(_good)
    monkeypatch.setattr(suite, "run_groups", functools.partial(run_groups, free=lambda _: 0))
    assert _call("--only", "step/*").exit_code == 0
    assert {point.status for point in _points(_runs(store)[0])} == {"skipped"}


def test_a_file_can_take_the_stores_place_and_json_is_the_same_text(play: Play, store: Path, tmp_path: Path) -> None:
    play(_good)
    path = tmp_path / "named.json"
    printed = _call("--output", path, "--json")
    assert printed.exit_code == 0, printed.output
    assert printed.stdout == path.read_text()
    assert read_run(path, origin="baseline")[0].id == "named"
    assert _runs(store) == []
    assert _call("--no-store").exit_code == 0
    assert _runs(store) == []
    assert _call("--output", path, "--store", tmp_path / "other").exit_code == 0
    assert len(_runs(tmp_path / "other")) == 1
    blocked = _call("--output", path / "below.json")
    assert (blocked.exit_code, "Pass a writable --output" in blocked.output) == (2, True)


def test_a_store_that_cannot_be_read_does_not_stop_a_run_and_reading_makes_none(
    play: Play, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(_good)
    assert _call("--no-store").exit_code == 0
    assert not store.exists()

    def busy(_folder: Path) -> Index:
        msg = "another process writes"
        raise RecordError(msg)

    monkeypatch.setattr(Index, "open", busy)
    result = _call("--no-store")
    assert (result.exit_code, "no stored ratios: another process writes" in result.stdout) == (0, True)


def test_the_list_has_every_group_with_its_cases_and_measures_nothing(play: Play) -> None:
    play(lambda _: pytest.fail("a group was started"))
    listed = _call("--list")
    assert listed.exit_code == 0, listed.output
    assert "step/torch/cpu/3000/float32/bands-1, about" in listed.stdout
    assert "AdamW fused; AdamW foreach; copy; SONew band 1" in listed.stdout
    entries = json.loads(_call("--list", "--json", "--only", "phases/*").stdout)["entries"]
    assert [entry["group"] for entry in entries] == [GROUPS[1].name]
    assert entries[0]["seconds"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--size", "500", "--only", "step/*"), "--size asks for one group"),
        (("--band", "1", "--effort", "full"), "--band asks for one group"),
        (("--only", "nothing/*"), "only='nothing/*' matches none"),
        (("--effort", "huge"), "'huge' is not one of ['quick', 'normal', 'full']"),
    ],
)
def test_wrong_use_names_the_value_and_the_fix(arguments: tuple[str, ...], said: str, play: Play) -> None:
    play(_good)
    result = _call(*arguments, "--no-store")
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())


def test_a_gpu_that_is_seen_but_unusable_is_skipped_with_its_reason(play: Play, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(_good)
    on_gpu = Group(what="step", effort="quick", framework="torch", device="cuda", workload=GROUPS[0].workload, bands=(1,))
    monkeypatch.setattr(suite, "all_groups", lambda: [*GROUPS, on_gpu])
    monkeypatch.setattr(suite, "gpu_problem", lambda: "the driver is too old")
    assert _call().exit_code == 0
    (before,) = _runs(store)
    assert {point.status for point in _points(before)} == {"done"}  # no trace of a GPU: nothing to say of it
    monkeypatch.setattr(suite, "gpus_seen", lambda: ["an old GPU"])
    assert _call().exit_code == 0
    (after,) = set(_runs(store)) - {before}
    skipped = [point for point in _points(after) if point.status == "skipped"]
    assert {point.reason for point in skipped} == {"the driver is too old"}
    assert len(skipped) == len(on_gpu.cases)
