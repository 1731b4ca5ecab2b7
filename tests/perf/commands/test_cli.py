from __future__ import annotations

import functools
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from sonew_autotune.device import find_device
from sonew_autotune.trials.outcome import Failure
from sonew_perf.cli import app, options
from sonew_perf.jax import ask as jax_process
from sonew_perf.jax.request import ADAMW, XLA, JaxTiming, Method
from sonew_perf.steps import runner
from sonew_perf.steps.workloads import one_tensor
from sonew_perf.training import runs as training
from tests.perf.records.made import read_run
from tests.perf.suite.made import MACHINE

RATES = ("--lr", "1e-3", "--lr", "3e-3", "--lr", "9e-3")


Quick = dict[str, list[training.Run]]


def _call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Runs of these tests do not join the user's."""
    monkeypatch.setenv("SONEW_PERF_STORE", str(tmp_path / "perf"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Quick:
    """Training replaced by losses with optima at lr 3e-3, SONew 25 % below AdamW."""
    log: Quick = {"trained": []}

    def fake(run: training.Run, _pixels: torch.Tensor, _device: torch.device) -> dict[str, object]:
        log["trained"].append(run)
        loss = (75.0 if run.method == "sonew" else 100.0) + (run.lr != 3e-3)
        return {"loss": loss, "losses": [loss], "wall_s": 2.0, "optimizer_s": 1.0, "plans": [], "date": "2026-01-01T00:00:00+00:00"}

    monkeypatch.setattr(training, "train", fake)
    return log


def test_run_prints_the_table_and_writes_the_record_it_prints_as_json(tmp_path: Path) -> None:
    shown = _call("run", "--size", "2000", "--band", "1", "--rounds", "7", "--device", "cpu", "--no-reference")
    assert shown.exit_code == 0, shown.output
    assert "One optimizer step: one tensor, 2000 float32 elements" in shown.output
    assert "analytic default (no stored entry fits)" in " ".join(shown.output.split())
    (kept,) = (tmp_path / "perf" / "runs").glob("*.json")
    assert f"Written to {kept}" in shown.stderr
    assert read_run(kept, origin="store")[0].command.startswith("sonew-perf")
    path = tmp_path / "speed.json"
    arguments = ("--size", "500", "--band", "0", "--rounds", "8", "--device", "cpu", "--tuning", "off", "--json", "--output", path)
    printed = _call("run", *arguments)
    assert printed.exit_code == 0, printed.output
    record = json.loads(printed.stdout)
    assert record == json.loads(path.read_text())
    assert record["schema_version"] == 1
    assert [entry["case"] for entry in record["entries"]][3:] == ["SONew band 0, untuned", "reference, band 0"]
    assert all(len(entry["samples_ms"]) == 8 for entry in record["entries"])


def test_jax_prints_the_table_and_writes_the_record_it_prints_as_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = dict.fromkeys(("sonew", "jax", "jaxlib", "optax", "python"), "known") | MACHINE
    workload = {"name": "one tensor", "tensors": 1, "elements": 500, "dtype": "float32"}
    shared = {"workload": workload, "machine": machine, "load_before": 0.1, "date": "2026-01-01T00:00:00+00:00", "baseline": ADAMW}
    asked = []

    def answer(timing: JaxTiming, _seconds: float) -> dict[str, Any]:
        asked.append(timing)
        ratio = {"median": 2.0, "low": 1.5, "high": 2.5}
        times = {"samples_ms": [3.0] * 7, "median_ms": 3.0, "p20_ms": 3.0, "p80_ms": 3.0, "against": {ADAMW: ratio}}
        entries = [{"case": method.case, **times, "state_bytes": 4000, "peak_bytes": 2**20} for method in timing.methods]
        return {**shared, "entries": entries, "failures": {}}

    monkeypatch.setattr(jax_process, "ask", answer)
    path = tmp_path / "speed.json"
    arguments = ("jax", "--size", "500", "--band", "1", "--rounds", "7")
    shown = _call(*arguments)
    assert "SONew band 1, XLA 3 0% 2.00 [1.50, 2.50] 8.0 1.0" in " ".join(shown.output.split())
    printed = _call(*arguments, "--json", "--output", path)
    assert printed.exit_code == 0, printed.output
    methods = (Method(family=ADAMW), Method(band=1, backend=XLA))
    assert asked == [JaxTiming(workload=one_tensor(500), methods=methods, device="cpu", rounds=7)] * 2
    record = json.loads(printed.stdout)
    assert record == json.loads(path.read_text())
    assert [(entry["kind"], entry["case"]) for entry in record["entries"]] == [
        ("jax step time", "optax.adamw"),
        ("jax step time", "SONew band 1, XLA"),
    ]


def test_jax_says_what_could_not_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = dict.fromkeys(("device", "type", "threads", "sonew", "jax", "jaxlib", "optax", "python"), "known")
    workload = {"name": "two", "tensors": 2, "elements": 5, "dtype": "float32"}
    answers: list[Any] = [
        {
            "workload": workload,
            "machine": machine,
            "load_before": 0.1,
            "date": "",
            "baseline": "optax.adamw",
            "entries": [],
            "failures": {"SONew band 1, XLA": "MemoryError: none"},
        },
        Failure("error", "the process ended with status 9"),
    ]
    monkeypatch.setattr(jax_process, "ask", lambda *_arguments: answers.pop(0))
    shown = _call("jax")
    assert shown.exit_code == 0
    assert "One jitted step: two (2 leaves), 5 float32 elements" in shown.output
    assert "SONew band 1, XLA: not measured (MemoryError: none)" in shown.output
    failed = _call("jax")
    assert (failed.exit_code, failed.stderr) == (3, "error: the process ended with status 9\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--rounds", "6"), "7"),
        (("jax", "--model", "gpt9"), "'gpt9' is not one of ['mnist-autoencoder', 'gpt2-small', 'llama-1b']"),
        (("run", "--size", "0"), "1"),
        (("run", "--tuning", "maybe"), "'maybe' is not one of ['on', 'off', 'pinned']"),
        (("run", "--model", "gpt9"), "'gpt9' is not one of ['mnist-autoencoder', 'gpt2-small', 'llama-1b']"),
        (("run", "--device", "abacus"), "'abacus' is not one of ['auto', 'cpu', 'cuda']"),
        (("train",), "neither --data nor SONEW_DATA is set"),
        (("train", "--data", "nowhere"), "nowhere is not a folder"),
        (("train", "--method", "magic"), "'magic' is not one of ['sonew', 'sonew-bf16-state', 'adamw']"),
        (("dance",), "No such command"),
    ],
)
def test_wrong_use_is_exit_code_2_and_names_the_value_and_the_fix(arguments: tuple[str, ...], said: str) -> None:
    result = _call(*arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())


def test_an_absent_device_is_exit_code_3(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(options, "find_device", functools.partial(find_device, problem=lambda: "the driver is too old"))
    for arguments in (("run",), ("train", "--data", folder)):
        result = _call(*arguments, "--device", "cuda")
        assert (result.exit_code, "cannot be used: the driver is too old" in result.output) == (3, True)


def test_a_gpu_that_cannot_be_used_is_a_loud_line(monkeypatch: pytest.MonkeyPatch, quick: Quick, folder: Path) -> None:
    seen = functools.partial(find_device, problem=lambda: "the driver is too old", seen=lambda: ["an old GPU"])
    monkeypatch.setattr(options, "find_device", seen)
    result = _call("train", "--data", folder, "--batch", "10", *RATES)
    assert result.exit_code == 0, result.output
    assert "A GPU is present (an old GPU) but cannot be used: the driver is too old" in " ".join(result.stderr.split())
    assert len(quick["trained"]) == 18


def test_train_really_trains_and_reads_the_folder_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("SONEW_DATA", str(folder))
    path = tmp_path / "training.json"
    arguments = ("--steps", "3", "--batch", "10", "--seeds", "1", "--lr", "1e-3", "--device", "cpu", "--json", "--output", path)
    result = _call("train", *arguments)
    assert result.exit_code == 3  # one learning rate is both edges of its grid: nothing is judged
    entries = json.loads(result.stdout)["entries"]
    assert entries == json.loads(path.read_text())["entries"]
    assert [(entry["method"], len(entry["losses"])) for entry in entries] == [("sonew", 3), ("adamw", 3)]
    assert entries[0]["losses"][0] == entries[1]["losses"][0]
    assert entries[0]["images"]["count"] == 40


def test_train_tells_the_relative_difference(quick: Quick, folder: Path) -> None:
    result = _call("train", "--data", folder, "--batch", "10", "--device", "cpu", *RATES)
    assert result.exit_code == 0, result.output
    assert "SONew band 1 against AdamW: -25.0% loss (seed by seed -25.0% to -25.0%)" in result.output
    assert len(quick["trained"]) == 2 * 3 * 3


def test_an_optimum_at_the_edge_is_exit_code_3(quick: Quick, folder: Path) -> None:
    result = _call("train", "--data", folder, "--batch", "10", "--device", "cpu", "--seeds", "1", *RATES[2:])
    assert result.exit_code == 3
    assert "not judged: the optimum of SONew band 1 and AdamW lies at the edge of the grid" in result.output
    assert len(quick["trained"]) == 4


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(("method", "label"), [("adamw", "AdamW"), ("sonew", "SONew band 1")])
def test_a_method_that_diverged_everywhere_is_exit_code_3_and_a_line(
    method: str, label: str, as_json: bool, quick: Quick, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    fake = training.train

    def diverging(run: training.Run, pixels: torch.Tensor, device: torch.device) -> dict[str, object]:
        return fake(run, pixels, device) | ({"loss": None} if run.method == method else {})

    monkeypatch.setattr(training, "train", diverging)
    shown = ("--json",) if as_json else ()
    result = _call("train", "--data", folder, "--batch", "10", "--device", "cpu", "--seeds", "1", *RATES, *shown)
    assert result.exit_code == 3
    assert len(quick["trained"]) == 6
    line = f"SONew band 1 against AdamW: not judged: {label} diverged at every learning rate"
    assert line in (result.stderr if as_json else result.stdout)


def test_a_method_alone_is_exit_code_0(quick: Quick, folder: Path) -> None:
    result = _call("train", "--data", folder, "--batch", "10", "--device", "cpu", "--method", "adamw", *RATES)
    assert (result.exit_code, len(quick["trained"])) == (0, 9)


def test_a_stopped_grid_keeps_what_was_done_and_goes_on_from_there(
    quick: Quick, monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "training.json"
    command = ("train", "--data", folder, "--batch", "10", "--device", "cpu", "--output", path, *RATES)
    fake, calls = training.train, iter(range(100))

    def interrupted(run: training.Run, pixels: torch.Tensor, device: torch.device) -> dict[str, object]:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return fake(run, pixels, device)

    monkeypatch.setattr(training, "train", interrupted)
    stopped = _call(*command)
    assert (stopped.exit_code, "the same command goes on from there" in stopped.output) == (130, True)
    assert len(json.loads(path.read_text())["entries"]) == 5
    resumed = _call(*command)
    assert resumed.exit_code == 0, resumed.output
    assert resumed.output.count("(recorded)") == 5
    assert len(quick["trained"]) == len(set(quick["trained"])) == 18
    assert len(json.loads(path.read_text())["entries"]) == 18


def test_an_interrupted_measurement_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object, **_keywords: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "measure", interrupted)
    result = _call("run", "--size", "500", "--band", "0", "--device", "cpu", "--no-reference")
    assert (result.exit_code, result.stderr.strip()) == (130, "interrupted")


@pytest.mark.parametrize("command", [(), ("run",), ("train",)])
def test_help_tells_the_exit_codes(command: tuple[str, ...]) -> None:
    assert "130 interrupted" in " ".join(_call(*command, "--help").output.split())


def test_a_damaged_record_or_data_file_is_exit_code_2_and_is_left_alone(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "training.json"
    path.write_text('{"schema_version": 1, "entr')
    result = _call("train", "--data", folder, "--batch", "10", "--output", path)
    assert (result.exit_code, "not readable as JSON" in result.output) == (2, True)
    assert path.read_text() == '{"schema_version": 1, "entr'
    images = folder / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1])
    result = _call("train", "--data", folder)
    assert (result.exit_code, "31375 bytes unpacked, expected 31376" in result.output) == (2, True)


def test_the_module_runs_as_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["sonew-perf", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("sonew_perf", run_name="__main__")
    assert ended.value.code == 0
    assert "train" in capsys.readouterr().out
