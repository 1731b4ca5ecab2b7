from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from sonew_autotune.device import find_device
from sonew_perf.cli import app, options, training
from sonew_perf.errors import MeasurementError
from sonew_perf.training import running
from sonew_perf.training.loop import Told, mean_every
from sonew_perf.training.runs import Run
from sonew_perf.training.tasks.data import Data
from sonew_perf.training.tasks.table import TASKS

RATES = ("--lr", "1e-3", "--lr", "3e-3", "--lr", "9e-3")
SMALL = ("--batch", "10", "--device", "cpu", "--steps", "8")  # two epochs of the 40 images


class Trained(list[Run]):
    """The runs that were trained; `stops` are numbers of calls at which Ctrl-C, or `error`, comes instead."""

    def __init__(self) -> None:
        super().__init__()
        self.stops: set[int] = set()
        self.error: type[BaseException] = KeyboardInterrupt
        self.calls = 0


def _call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Runs of these tests do not join the user's, and nobody's are read; no cell is wrapped."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("SONEW_PERF_STORE", str(tmp_path / "perf"))
    monkeypatch.setattr(training, "BASELINES", tmp_path / "none")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Trained:
    """Training replaced by curves with an optimum at lr 3e-3; SONew is after 4 steps where Adam ends, and ends 25 % below."""
    log = Trained()

    def fake(run: Run, data: Data, _device: object, *, counters: bool, told: Told) -> dict[str, Any]:
        log.calls += 1
        if log.calls in log.stops:
            raise log.error
        log.append(run)
        last = (75.0 if run.method == "sonew" else 100.0) + 0.5 * (run.settings.lr != 3e-3)
        losses = [last + 25.0, last]
        told(1, last)
        return {
            "loss": last,
            "losses": losses,
            "losses_every": mean_every(TASKS[run.task], data, run.batch),
            "wall_s": 2.0,
            "optimizer_s": 1.0,
            "step_s": 0.25,
            "optimizer_step_s": 0.125,
            "state_bytes": 2**20,
            "fallback": {"layers": {"0.weight": [0.5, 0.25]}} if counters else None,
            "plans": [],
            "date": "2026-01-01T00:00:00+00:00",
        }

    monkeypatch.setattr(running, "train", fake)
    return log


def _words(result: Result) -> str:
    return " ".join(result.output.replace("│", " ").split())


def test_it_really_trains_and_reads_the_folder_from_the_environment(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("SONEW_DATA", str(folder))
    path = tmp_path / "training.json"
    arguments = ("--steps", "2", "--batch", "40", "--lr-rule", "constant", "--counters", "--device", "cpu")
    result = _call(*arguments, "--json", "--output", path)
    assert result.exit_code == 0, result.output
    ours, theirs = json.loads(result.stdout)["entries"]
    assert [ours, theirs] == json.loads(path.read_text())["entries"]
    assert (ours["method"], theirs["method"]) == ("sonew", "adam")
    assert ours["losses"][0] == pytest.approx(theirs["losses"][0], rel=1e-6)
    assert ours["losses"][1] < ours["losses"][0]
    assert ours["data"]["examples"] == 40
    assert len(ours["fallback"]["layers"]) == 16
    assert not (tmp_path / "perf" / "runs").exists()


def test_results_and_shares_are_printed_and_kept_in_the_store(trained: Trained, folder: Path, tmp_path: Path) -> None:
    result = _call("--data", folder, *SMALL, "--seed", "0", "--seed", "1", "--counters")
    assert result.exit_code == 0, result.output
    said = _words(result)
    assert "MNIST autoencoder, 8 steps of a schedule of 400, batch 10" in said
    assert "SONew band 1 0.00617 75.50 (75.50 to 75.50) 250.0 125.00 1.0 25.00%" in said
    assert "To Adam's best final loss, 100.50" in said
    assert "SONew band 1 4 50 % 50 % 50 %" in said
    assert "SONew band 1 ends lowest: 75.50 (75.50 to 75.50), 24.9% below Adam" in said
    assert len(trained) == 4
    (kept,) = (tmp_path / "perf" / "runs").glob("*.json")
    assert f"Written to {kept}" in result.stderr


def test_a_grid_is_printed_and_judged(trained: Trained, folder: Path) -> None:
    result = _call("--data", folder, *SMALL, *RATES)
    assert result.exit_code == 0, result.output
    assert "0.003 75.00 100.00" in _words(result)
    assert "To Adam's best final loss, 100.00" in _words(result)
    assert len(trained) == 2 * 3


@pytest.mark.parametrize("as_json", [False, True])
def test_an_optimum_at_the_edge_is_exit_code_3_and_a_line(as_json: bool, trained: Trained, folder: Path) -> None:
    result = _call("--data", folder, *SMALL, *RATES[2:], *(["--json"] * as_json))
    assert result.exit_code == 3
    line = "not judged: the optimum of SONew band 1 lies at the edge of the grid, move the grid with --lr"
    assert line in (result.stderr if as_json else result.stdout)
    assert len(trained) == 4


def test_a_method_alone_is_exit_code_0(trained: Trained, folder: Path) -> None:
    result = _call("--data", folder, *SMALL, "--method", "adam")
    assert (result.exit_code, len(trained), "best final loss" in result.output) == (0, 1, False)


def test_a_stopped_command_keeps_what_was_done_and_goes_on_from_there(trained: Trained, folder: Path, tmp_path: Path) -> None:
    trained.stops = {5, 12}  # the fifth run of each first command
    path = tmp_path / "training.json"
    for place in (("--output", path), ("--store", tmp_path / "other")):
        trained.clear()
        command = ("--data", folder, *SMALL, *RATES, *place)
        stopped = _call(*command)
        assert (stopped.exit_code, "4 of 6 runs are kept" in stopped.output) == (130, True)
        resumed = _call(*command)
        assert resumed.exit_code == 0, resumed.output
        assert resumed.output.count("(recorded)") == 4
        assert "4 of 6 runs were recorded before, on such a machine" in resumed.stderr
        assert len(trained) == len(set(trained)) == 6
    entries = json.loads(path.read_text())["entries"]
    assert (len(entries), all(len(entry["commit"]) == 40 for entry in entries)) == (6, True)
    (kept,) = (tmp_path / "other" / "runs").glob("*.json")
    assert len(json.loads(kept.read_text())["entries"]) == 6


def test_a_run_that_fails_leaves_those_before_it_in_the_store(trained: Trained, folder: Path, tmp_path: Path) -> None:
    trained.stops, trained.error = {2}, MeasurementError
    assert _call("--data", folder, *SMALL).exit_code == 3
    (kept,) = (tmp_path / "perf" / "runs").glob("*.json")
    assert [entry["method"] for entry in json.loads(kept.read_text())["entries"]] == ["sonew"]
    assert list((tmp_path / "perf" / "training").glob("*.json")) == []
    result = _call("--data", folder, *SMALL)
    assert (result.exit_code, result.output.count("(recorded)"), len(trained)) == (0, 1, 2)


@pytest.mark.parametrize("option", ["--output", "--store"])
@pytest.mark.parametrize("search", [(), ("--search", "2")])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_trained(
    option: str, search: tuple[str, ...], trained: Trained, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    result = _call("--data", folder, *SMALL, *search, option, tmp_path / "file" / "x.json")
    assert (result.exit_code, trained) == (2, [])
    assert "file/x.json cannot be written" in _words(result)
    assert f"Pass {'a writable --output' if option == '--output' else '--store or set'}" in _words(result)


def test_commands_may_write_to_one_file_at_once(trained: Trained, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another command adds its run to the file while this one trains."""
    path = tmp_path / "training.json"
    fake: Callable[..., dict[str, Any]] = vars(running)["train"]
    others = iter([("--seed", "7", "--method", "adam")])

    def meanwhile(*arguments: Any, **more: Any) -> dict[str, Any]:
        for other in others:  # once
            assert _call("--data", folder, *SMALL, *other, "--output", path).exit_code == 0
        return fake(*arguments, **more)

    monkeypatch.setattr(running, "train", meanwhile)
    assert _call("--data", folder, *SMALL, "--output", path).exit_code == 0
    assert [run.seed for run in trained] == [entry["seed"] for entry in json.loads(path.read_text())["entries"]] == [7, 0, 0]


def test_what_is_not_whole_is_trained_again(trained: Trained, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "training.json"
    assert _call("--data", folder, *SMALL, "--output", path).exit_code == 0
    record = json.loads(path.read_text())
    del record["entries"][0]["losses"]
    path.write_text(json.dumps(record))
    result = _call("--data", folder, *SMALL, "--output", path)
    assert (result.exit_code, result.output.count("(recorded)"), len(trained)) == (0, 1, 3)
    assert [entry["method"] for entry in json.loads(path.read_text())["entries"]] == ["sonew", "adam", "sonew"]


def test_steps_at_which_nothing_moves_are_told(trained: Trained, folder: Path) -> None:
    told = [_call("--data", folder, "--batch", "10", "--device", "cpu", *more).stderr for more in (("--steps", "4"), ("--steps", "5"))]
    assert ["no weight will move. Pass more --epochs, or --lr-rule constant" in stderr for stderr in told] == [True, False]
    assert len(trained) == 4


def test_what_is_known_is_reported_without_training(trained: Trained, folder: Path, tmp_path: Path) -> None:
    nothing = _call("--report")
    assert (nothing.exit_code, "no training runs: train first" in nothing.stderr) == (3, True)
    path = tmp_path / "training.json"
    for place in ((), ("--output", path)):
        assert _call("--data", folder, *SMALL, *place).exit_code == 0
    trained.clear()
    for result in (_call("--report"), _call("--report", "--record", path)):
        assert result.exit_code == 0, result.output
        assert "SONew band 1 4 50 % 50 % 50 %" in _words(result)
    entries = json.loads(_call("--report", "--record", path, "--json").stdout)["entries"]
    assert [(entry["label"], entry["run"]) for entry in entries] == [("SONew band 1", "training"), ("Adam", "training")]
    assert trained == []


def test_runs_of_the_older_form_are_counted(trained: Trained, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "training.json"
    assert _call("--data", folder, *SMALL, "--output", path).exit_code == 0
    record = json.loads(path.read_text())
    del record["entries"][0]["label"]
    path.write_text(json.dumps(record))
    result = _call("--report", "--record", path)
    assert (result.exit_code, len(trained)) == (0, 2)
    assert "1 training runs of an older form, without a label, are left out" in result.stderr
    assert "Adam ends lowest" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "neither --data nor SONEW_DATA is set"),
        (("--data", "nowhere"), "nowhere is not a folder"),
        (("--method", "magic"), "'magic' is not one of ['sonew'"),
        (("--record", "x.json"), "--record is read by --report alone: pass both, or neither"),
        (("--report", "--record", "nowhere.json"), "nowhere.json is no record"),
        (("--report", "--output", "x.json"), "To read that record pass --record x.json"),
        (("--task", "text", "--download"), "--download is not allowed with the task 'text'"),
    ],
)
def test_wrong_use_is_exit_code_2_and_names_the_value_and_the_fix(arguments: tuple[str, ...], said: str) -> None:
    result = _call(*arguments)
    assert (result.exit_code, said in _words(result)) == (2, True)


def test_images_are_fetched_where_no_folder_is_named(trained: Trained, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    fetched: list[Path] = []

    def fetch(told: Callable[[int, int | None], None]) -> Path:
        told(1, None)
        fetched.append(folder)
        return folder

    monkeypatch.setattr(training, "fetch_mnist", fetch)
    assert _call("--download", *SMALL).exit_code == 0
    assert _call("--download", "--data", folder, *SMALL).exit_code == 0
    assert (len(fetched), len(trained)) == (1, 2)


def test_a_gpu_that_cannot_be_used_is_a_loud_line(monkeypatch: pytest.MonkeyPatch, trained: Trained, folder: Path) -> None:
    seen = functools.partial(find_device, problem=lambda: "the driver is too old", seen=lambda: ["an old GPU"])
    monkeypatch.setattr(options, "find_device", seen)
    result = _call("--data", folder, "--batch", "10", "--steps", "8")
    assert (result.exit_code, len(trained)) == (0, 2)
    assert "A GPU is present (an old GPU) but cannot be used: the driver is too old" in " ".join(result.stderr.split())


def test_a_damaged_record_or_data_file_is_exit_code_2_and_is_left_alone(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "training.json"
    path.write_text('{"schema_version": 1, "entr')
    result = _call("--data", folder, *SMALL, "--output", path)
    assert (result.exit_code, "not readable as JSON" in result.output) == (2, True)
    assert path.read_text() == '{"schema_version": 1, "entr'
    for text in ('{"schema_version": 1, "entries": [{"loss": NaN}]}', '{"schema_version": 2, "entries": []}'):
        path.write_text(text)
        result = _call("--data", folder, *SMALL, "--output", path)
        assert (result.exit_code, "Move it away or pass another --output" in _words(result)) == (2, True)
        assert path.read_text() == text
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    result = _call("--data", folder, *SMALL, "--output", pipe)
    assert (result.exit_code, "is no regular file" in _words(result)) == (2, True)
    images = folder / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1])
    result = _call("--data", folder)
    assert (result.exit_code, "31375 bytes unpacked, expected 31376" in result.output) == (2, True)
