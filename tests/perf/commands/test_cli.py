from __future__ import annotations

import functools
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from sonew_autotune.device import find_device
from sonew_autotune.trials.outcome import Failure
from sonew_perf.cli import app, options
from sonew_perf.jax import ask as jax_process
from sonew_perf.jax.request import ADAMW, XLA, JaxTiming, Method
from sonew_perf.steps import runner
from sonew_perf.steps.workloads import one_tensor
from tests.perf.records.made import read_run
from tests.perf.suite.made import MACHINE


def _call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Runs of these tests do not join the user's."""
    monkeypatch.setenv("SONEW_PERF_STORE", str(tmp_path / "perf"))


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


def test_an_interrupted_measurement_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object, **_keywords: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "measure", interrupted)
    result = _call("run", "--size", "500", "--band", "0", "--device", "cpu", "--no-reference")
    assert (result.exit_code, result.stderr.strip()) == (130, "interrupted")


@pytest.mark.parametrize("command", [(), ("run",), ("train",)])
def test_help_tells_the_exit_codes(command: tuple[str, ...]) -> None:
    assert "130 interrupted" in " ".join(_call(*command, "--help").output.split())


def test_the_module_runs_as_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["sonew-perf", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("sonew_perf", run_name="__main__")
    assert ended.value.code == 0
    assert "train" in capsys.readouterr().out
