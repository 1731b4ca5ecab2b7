from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from sonew_autotune.trials.outcome import Failure
from sonew_perf.cli import suite
from sonew_perf.errors import RecordError
from sonew_perf.records.index import Index
from sonew_perf.suite import run
from sonew_perf.suite.groups import Group
from sonew_perf.suite.run import run_groups
from sonew_perf.suite.stored import earlier_points
from sonew_perf.suite.torch_process import Timed
from tests.perf.suite.made import GROUPS, MACHINE, RUN, Play, call, good, points_of, runs_of, timed


def test_a_budget_skips_what_does_not_fit_with_its_reason(play: Play, store: Path) -> None:
    play(good)
    result = call("--budget", "0.5")
    assert result.exit_code == 0, result.output
    (path,) = runs_of(store)
    assert {point.status for point in points_of(path)} == {"skipped"}
    assert all(point.reason.startswith("the budget of 0.5 s has 0 s left, and it takes about") for point in points_of(path))


def test_a_case_that_is_wrong_is_exit_code_1_and_a_result_without_samples(play: Play, store: Path) -> None:
    play(lambda group: Timed(timed(group)[:-1], {"SONew band 1": "wrong: off by \x1b[31mone"}) if group.what == "step" else good(group))
    result = call()
    assert result.exit_code == 1
    assert "wrong: off by \\x1b[31mone" in result.stdout
    failed = [point for point in points_of(runs_of(store)[0]) if point.status == "failed"]
    assert [(point.reason, point.samples) for point in failed] == [("wrong: off by \x1b[31mone", ())]
    assert "8 results: 7 done, 1 failed" in result.stdout


def test_a_process_that_dies_costs_its_group_only(play: Play, store: Path) -> None:
    play(lambda group: Failure("crash", "the worker process died (signal 9)") if group.what == "step" else good(group))
    assert call().exit_code == 1
    statuses = [point.status for point in points_of(runs_of(store)[0])]
    assert (statuses.count("failed"), statuses.count("done")) == (4, 8)  # four phases, each with its peak memory


def test_a_fresh_clone_shows_what_another_machine_committed(
    play: Play, store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    play(good)
    monkeypatch.setattr(suite, "describe_machine", lambda _device: RUN.machine)
    monkeypatch.setattr(run, "describe", lambda _device: MACHINE)
    path = tmp_path / "committed" / "2026-01-01-other.json"
    assert call("--output", path, "--only", "step/*").exit_code == 0
    path.write_text(path.read_text().replace("Some CPU", "Other CPU"))
    monkeypatch.setattr(suite, "earlier_points", functools.partial(earlier_points, baselines=path.parent))
    play(lambda group: Timed(timed(group, ratio=3.0), {}))
    result = call("--effort", "quick", "--no-store")
    row = next(row for row in map(str.split, result.stdout.splitlines()) if row[:3] == ["SONew", "band", "1"])
    assert row[5:9] == ["3.00", "[3.00,", "3.00]", "2.00*"]
    assert result.stdout.count("*: the newest committed number of another machine") == 1  # the phases have none
    play(lambda _: Failure("crash", "signal 11"))
    assert "*:" not in call("--no-store").stdout
    assert not store.exists()


def test_skips_are_exit_code_0(play: Play, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(good)
    monkeypatch.setattr(suite, "run_groups", functools.partial(run_groups, free=lambda _: 0))
    assert call("--only", "step/*").exit_code == 0
    assert {point.status for point in points_of(runs_of(store)[0])} == {"skipped"}


def test_a_store_that_cannot_be_read_does_not_stop_a_run_and_reading_makes_none(
    play: Play, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(good)
    assert call("--no-store").exit_code == 0
    assert not store.exists()

    def busy(*_folders: Path) -> Index:
        msg = "another process writes"
        raise RecordError(msg)

    monkeypatch.setattr(Index, "open", busy)
    result = call("--no-store")
    assert (result.exit_code, "no stored ratios: another process writes" in result.stdout) == (0, True)


def test_the_list_has_every_group_with_its_cases_and_measures_nothing(play: Play) -> None:
    play(lambda _: pytest.fail("a group was started"))
    listed = call("--list")
    assert listed.exit_code == 0, listed.output
    assert "step/torch/cpu/3000/float32/bands-1, about" in listed.stdout
    assert "AdamW fused; AdamW foreach; copy; SONew band 1" in listed.stdout
    entries = json.loads(call("--list", "--json", "--only", "phases/*").stdout)["entries"]
    assert [entry["group"] for entry in entries] == [GROUPS[1].name]
    assert entries[0]["seconds"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--size", "500", "--only", "step/*"), "--size asks for one group"),
        (("--band", "1", "--effort", "full"), "--band asks for one group"),
        (("--only", "nothing/*"), "only='nothing/*' matches none"),
        (("--band", "1", "--budget", "9"), "--band asks for one group"),
        (("--budget", "nan"), "nan is no number of seconds above 0"),
        (("--effort", "huge"), "'huge' is not one of ['quick', 'normal', 'full']"),
    ],
)
def test_wrong_use_names_the_value_and_the_fix(arguments: tuple[str, ...], said: str, play: Play) -> None:
    play(good)
    result = call(*arguments, "--no-store")
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())


def test_a_gpu_that_is_seen_but_unusable_is_skipped_with_its_reason(play: Play, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(good)
    on_gpu = Group(what="step", effort="quick", framework="torch", device="cuda", workload=GROUPS[0].workload, bands=(1,))
    monkeypatch.setattr(suite, "all_groups", lambda: [*GROUPS, on_gpu])
    monkeypatch.setattr(suite, "gpu_problem", lambda: "the driver is too old")
    assert call().exit_code == 0
    (before,) = runs_of(store)
    assert {point.status for point in points_of(before)} == {"done"}  # no trace of a GPU: nothing to say of it
    monkeypatch.setattr(suite, "gpus_seen", lambda: ["an old GPU"])
    assert call().exit_code == 0
    (after,) = set(runs_of(store)) - {before}
    skipped = [point for point in points_of(after) if point.status == "skipped"]
    assert {point.reason for point in skipped} == {"the driver is too old"}
    assert len(skipped) == len(on_gpu.cases)
