from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from sonew_perf.cli import history as commands
from sonew_perf.history import report
from sonew_perf.records.index import Index
from sonew_perf.records.runs import write_run
from tests.perf.records.made import Step, fake_commit, made_run, make_store, step_entry

PLANTED = Step(series=3, run=12, ratio=1.2)  # SONew band 1 of the first size

app = typer.Typer()
app.command()(commands.history)
app.command()(commands.regressions)


def _call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


class StoreOnly:
    """An index without the committed records, which grow with time."""

    @staticmethod
    def open(folder: Path) -> Index:
        return Index.open(folder, None)


@pytest.fixture(autouse=True)
def _store_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "Index", StoreOnly)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty runs of six cases; one case became a fifth slower in the thirteenth."""
    folder = tmp_path_factory.mktemp("perf") / "store"
    make_store(folder, series=6, runs=20, step=PLANTED)
    return folder


def test_history_shows_levels_the_break_the_runs_and_the_command(store: Path) -> None:
    shown = _call("history", "SONew band 1: step*65536*", "--store", store)
    assert shown.exit_code == 0, shown.output
    title, spark, first, change, bisect, second, judged, *_ = shown.stdout.splitlines()
    assert title.startswith("SONew band 1: step, one tensor, 65536 elements, float32, torch [")
    assert title.endswith("] on AMD EPYC (cpu), 2 threads")
    assert set(spark.split()[0][:12]) <= set("▁▂▃")
    assert set(spark.split()[0][12:]) <= set("▆▇█")
    assert "12 results, 2026-01-01 to 2026-01-12" in first
    assert "8 results, 2026-01-13 to 2026-01-20" in second
    good, bad = (f"{made_run(number).id} ({fake_commit(number)[:10]})" for number in (11, 12))
    assert f" % slower: {good} .. {bad}" in change
    assert bisect.strip().startswith(f"git bisect start {fake_commit(12)} {fake_commit(11)} && git bisect run sh -c ")
    assert "smallest visible change" in judged


def test_history_as_json_says_the_same(store: Path) -> None:
    shown = _call("history", "--kernel", "step", "--case", "SONew*", "--band", "1", "--changed", "--json", "--store", store)
    assert shown.exit_code == 0, shown.output
    document = json.loads(shown.stdout)
    [entry] = document["entries"]
    assert document["schema_version"] == 1
    assert (entry["case"], entry["elements"], entry["judged"], len(entry["medians"]), len(entry["levels"])) == (
        "SONew band 1",
        65536,
        True,
        20,
        2,
    )
    [change] = entry["changes"]
    assert (change["index"], change["direction"], entry["runs"][12]) == (12, "slower", change["first_bad"])
    assert change["ratio"] == pytest.approx(1.2, abs=0.05)


def test_history_filters_and_says_when_nothing_fits(store: Path) -> None:
    everything = json.loads(_call("history", "--json", "--store", store).stdout)["entries"]
    copies = json.loads(_call("history", "--framework", "torch", "--case", "copy", "--json", "--store", store).stdout)["entries"]
    assert 0 < len(copies) < len(everything)
    assert {entry["case"] for entry in copies} == {"copy"}
    identity = next(entry["id"] for entry in everything if entry["elements"] == 65536)
    [one] = json.loads(_call("history", identity, "--json", "--store", store).stdout)["entries"]
    assert one["id"] == identity
    nothing = _call("history", "no such thing", "--store", store)
    assert nothing.exit_code == 2
    assert "no series is like this" in nothing.stderr


def test_a_regression_is_listed_settled_and_counted(tmp_path: Path) -> None:
    make_store(tmp_path, series=6, runs=20, step=PLANTED)
    shown = _call("regressions", "--store", tmp_path)
    assert shown.exit_code == 0, shown.output
    [entry] = json.loads(_call("regressions", "--json", "--store", tmp_path).stdout)["entries"]
    assert f"{entry['id']}: {made_run(11).id} .. {made_run(12).id}" in shown.stdout
    assert entry["bisect"] in shown.stdout
    assert _call("regressions", "--fail", "--store", tmp_path).exit_code == 1
    said = _call("regressions", "--set", "accepted", entry["id"], "--note", "\x1b[31mmeant", "--author", "Ada", "--store", tmp_path)
    assert said.exit_code == 0, said.output
    assert "by Ada: \\x1b[31mmeant" in said.stdout
    assert "\x1b" not in said.stdout
    assert _call("regressions", "--fail", "--store", tmp_path).exit_code == 0
    assert json.loads(_call("regressions", "--state", "open", "--json", "--store", tmp_path).stdout)["entries"] == []
    [accepted] = json.loads(_call("regressions", "--state", "accepted", "--json", "--store", tmp_path).stdout)["entries"]
    assert (accepted["state"], accepted["note"], accepted["author"]) == ("accepted", "\x1b[31mmeant", "Ada")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "accepted", "x-1"), "'x-1' is no regression of this store"),
        (("--note", "why"), "pass --set STATE ID as well"),
        (("--state", "gone"), "'gone' is not one of ['open', 'accepted', 'fixed', 'ignored']"),
    ],
)
def test_wrong_use_is_named_with_its_fix(store: Path, arguments: tuple[str, ...], said: str) -> None:
    shown = _call("regressions", *arguments, "--store", store)
    assert shown.exit_code == 2
    assert said in " ".join(shown.output.replace("│", " ").split())


def test_a_wrong_state_is_refused(store: Path) -> None:
    [entry] = json.loads(_call("regressions", "--json", "--store", store).stdout)["entries"]
    shown = _call("regressions", "--set", "gone", entry["id"], "--store", store)
    assert (shown.exit_code, (store / "tickets.json").exists()) == (2, False)
    assert "'gone' is not one of" in shown.stderr


@pytest.mark.parametrize("command", ["history", "regressions"])
def test_a_store_without_enough_results_is_not_judged(tmp_path: Path, command: str) -> None:
    make_store(tmp_path, series=2, runs=3)
    shown = _call(command, "--store", tmp_path)
    assert shown.exit_code == 3
    assert "nothing can be judged" in shown.stderr


def test_foreign_text_is_shown_escaped(tmp_path: Path) -> None:
    for number in range(20):
        entry = step_entry("SONew band 1", 4096, [1.0 + (number >= 10)] * 7)
        write_run(
            tmp_path, made_run(number, label="\x1b]0;owned\x07"), [entry | {"machine": {**entry["machine"], "device": "[red]\x1b[31mCPU"}}]
        )
    shown = _call("history", "4096", "--store", tmp_path)
    assert "\x1b" not in shown.output
    assert "\x07" not in shown.output


def test_a_sparkline_has_a_block_per_value_or_group() -> None:
    assert report.sparkline([]) == ""
    assert report.sparkline([3.0, 3.0]) == "▁▁"
    assert report.sparkline([0.0, 7.0, 1.0]) == "▁█▂"
    assert report.sparkline([1.0] * 100 + [2.0] * 100, widest=4) == "▁▁██"


def test_histories_load_no_torch_and_no_scipy_before_they_are_needed() -> None:
    """The first costs a command line seconds, the second most of one."""
    code = "import sys, sonew_perf.history; print([name for name in ('ruptures', 'scipy', 'torch') if name in sys.modules])"
    folders = [str(Path(commands.__file__).parents[2]), str(Path(commands.__file__).parents[3])]
    environment = {"PYTHONPATH": ":".join(folders)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=environment)
    assert done.stdout.strip() == "[]"
