from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sonew_perf.errors import RecordError
from sonew_perf.history.tickets import ticket_id
from sonew_perf.records.machines import machine_of
from sonew_perf.records.retention import apply_gc, plan_gc, tagged_commits
from sonew_perf.records.runs import Pin, write_pins, write_run
from tests.perf.records.made import MACHINE, fake_commit, made_run, step_entry

RUNS = 6
IDS = [made_run(number).id for number in range(RUNS)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    for number in range(RUNS):
        write_run(folder, made_run(number), [step_entry("copy", 8, [1.0])])
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "runs", tmp_path / "store" / "runs")).parent


def _pin(store: Path, run: str) -> None:
    write_pins(store, {run: Pin(run)})


def _ticket(state: str) -> Callable[[Path, str], None]:
    def write(store: Path, run: str) -> None:
        entry = {"id": ticket_id("0123456789ab", run), "state": state, "note": "", "author": "", "date": ""}
        (store / "tickets.json").write_text(json.dumps({"schema_version": 1, "entries": [entry]}))

    return write


def _comparison(store: Path, run: str) -> None:
    (store / "compares").mkdir()
    record = {"schema_version": 1, "comparison": {"base": {"spec": f"run {run}"}}, "entries": []}
    (store / "compares" / "one.json").write_text(json.dumps(record))


def _label(store: Path, run: str) -> None:
    path = store / "runs" / f"{run}.json"
    path.write_text(path.read_text().replace('"label": ""', '"label": "release"'))


@pytest.mark.parametrize(
    ("protect", "why"),
    [
        (_pin, "pinned"),
        (_label, "labelled"),
        (_ticket("open"), "named by an open ticket"),
        (_comparison, "named by comparison one"),
        (_ticket("fixed"), None),
    ],
)
def test_only_old_runs_that_nothing_speaks_of_are_dropped(store: Path, protect: Callable[[Path, str], None], why: str | None) -> None:
    protect(store, IDS[1])
    plan = plan_gc(store, keep_last=2, baselines=None)
    protected = [] if why is None else [IDS[1]]
    assert [drop.run.id for drop in plan.drops] == [run for run in IDS[:-2] if run not in protected]
    assert plan.kept.get(IDS[1]) == why
    assert {plan.kept[run] for run in IDS[-2:]} == {"among the last 2 of its machine"}
    assert [drop.size for drop in plan.drops] == [(store / "runs" / f"{drop.run.id}.json").stat().st_size for drop in plan.drops]
    assert len(list((store / "runs").iterdir())) == RUNS, "a plan removes nothing"
    apply_gc(plan)
    assert sorted(path.stem for path in (store / "runs").iterdir()) == sorted([*protected, *IDS[-2:]])


def test_each_machine_keeps_its_own_newest_runs(store: Path) -> None:
    other = machine_of({**MACHINE, "device": "Another"})
    first = write_run(store, made_run(-1, id="first", machine=other), [step_entry("copy", 8, [1.0])])
    plan = plan_gc(store, keep_last=1, baselines=None)
    assert [drop.run.id for drop in plan.drops] == IDS[:-1]
    assert first.exists()


def test_committed_records_and_files_that_are_no_records_stay(store: Path, tmp_path: Path) -> None:
    committed = tmp_path / "committed"
    shutil.copytree(store / "runs", committed)
    (store / "runs" / "torn.json").write_text("{")
    assert plan_gc(store, keep_last=1, baselines=committed).drops == []
    (committed / f"{IDS[0]}.json").unlink()
    plan = plan_gc(store, keep_last=1, baselines=committed)
    assert (plan.drops, plan.kept) == ([], {IDS[0]: "among the last 1 of its machine"})


def test_runs_of_tagged_commits_stay(store: Path) -> None:
    plan = plan_gc(store, keep_last=1, tagged={fake_commit(2)}, baselines=None)
    assert [drop.run.id for drop in plan.drops] == [IDS[0], IDS[1], IDS[3], IDS[4]]
    assert plan.kept[IDS[2]] == "its commit is tagged"


@pytest.mark.parametrize("name", ["pins.json", "tickets.json", "compares/one.json"])
def test_nothing_is_dropped_while_nobody_can_tell_what_must_stay(store: Path, name: str) -> None:
    (store / name).parent.mkdir(exist_ok=True)
    (store / name).write_text("{")
    with pytest.raises(RecordError, match="Mend it or move it away"):
        plan_gc(store, keep_last=1, baselines=None)


def test_a_comparison_whose_name_is_no_text_keeps_its_runs(store: Path) -> None:
    _comparison(store, IDS[0])
    (store / "compares" / "one.json").rename(store / "compares" / os.fsdecode(b"\xff.json"))
    assert plan_gc(store, keep_last=1, baselines=None).kept[IDS[0]] == r"named by comparison \udcff"


def test_files_of_killed_writers_go_once_they_are_old(store: Path) -> None:
    old, new = (store / "runs" / f".run.json.{name}.tmp" for name in ("old", "new"))
    for path in (old, new):
        path.write_text("{")
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    plan = plan_gc(store, keep_last=RUNS, baselines=None)
    assert (list(plan.left_over), plan.drops) == ([old], [])
    apply_gc(plan)
    assert (old.exists(), new.exists()) == (False, True)


def test_tags_are_those_of_the_checkout_also_inside_a_hook_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        settings = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false")
        command = ["git", "-C", str(tmp_path), *settings, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    commits = []
    for number in range(3):
        git("commit", "-q", "--allow-empty", "-m", str(number))
        commits.append(git("rev-parse", "HEAD"))
    git("tag", "plain", commits[0])
    git("tag", "-a", "-m", "x", "annotated", commits[1])
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "another"))  # as git sets it for its hooks
    assert {commit in tagged_commits(tmp_path) for commit in commits[:2]} == {True}
    assert commits[2] not in tagged_commits(tmp_path)
    with pytest.raises(RecordError, match="Leave out --keep-tagged"):
        tagged_commits(tmp_path / "nowhere")
