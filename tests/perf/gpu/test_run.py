from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from sonew_kernels.spec import SPECS
from sonew_perf.cli import app
from sonew_perf.cli import gpu as gpu_command
from sonew_perf.gpu import identity, run
from sonew_perf.gpu.outcome import Outcome
from sonew_perf.gpu.plan import STAGES, JaxLadder, Ladder, Racecheck, Scale, Tune
from sonew_perf.gpu.run import GpuRun, Options, document, no_gpu, run_gpu, run_timing
from sonew_perf.gpu.targets import judge_all
from sonew_perf.gpu.timing import Timing, make_timer
from sonew_perf.steps.peers import COPY, EAGER, SONEW, Method
from sonew_perf.steps.workloads import Workload, one_tensor

TINY = Scale(
    device="cpu",
    bands=(1,),
    elements=3000,
    small_models=(Workload("small", ((20, 30), (7,))),),
    models=(),
    split_models=(),
    tuned_models=(),
    compiler="eager",
    rounds=7,
    trials=2,
    jax_ladder=JaxLadder(device="cpu"),
    jax_sizes=(700,),
    jax_models=(),
)
JAX_NAMES = ["JAX tests on the device", "JAX, 700"]
NAMES = ["tests on the device", "racecheck", "tune band 1", "3000, band 1", "3000, peers", "small", *JAX_NAMES]
BEGUN = ["Ladder", "Racecheck", "Tune", "Timing", "Timing", "Timing", "JaxLadder", "JaxTiming"]
FIELDS = [
    *("schema_version", "kind", "date", "command", "key", "device", "versions", "sources"),
    *("complete", "not_quotable", "entries", "targets"),
]

Log = list[str]
Runners = dict[str, Callable[[Any, float], Outcome]]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """Units played by stand-ins that say what was begun."""
    begun: Log = []

    def stand_in(task: Any, seconds: float) -> Outcome:
        begun.append(type(task).__name__)
        return Outcome(status="done", reason=f"within {seconds:.0f} s", result={})

    monkeypatch.setattr(run, "RUNNERS", dict.fromkeys(run.RUNNERS, stand_in))
    return begun


def _replace(monkeypatch: pytest.MonkeyPatch, kind: type, runner: Callable[[Any, float], Outcome]) -> None:
    monkeypatch.setattr(run, "RUNNERS", {**run.RUNNERS, kind: runner})


def _go(tmp_path: Path, said: Log | None = None, **options: Any) -> GpuRun:
    return run_gpu(Options(scale=TINY, out=tmp_path / "deep" / "record.json", **options), say=(Log() if said is None else said).append)


@pytest.mark.full  # half a minute of processes that load torch; the tests below and of the parts do the same in pieces
def test_the_whole_run_really_happens_and_a_second_one_repeats_nothing(tmp_path: Path) -> None:
    """Every stage on the compiled CPU backend: tests in their process, the tuner with its worker, cases in theirs."""
    (tmp_path / "test_one.py").write_text("def test_passes():\n    assert True\n")
    ladder = Ladder(tests=str(tmp_path), marker="not full")
    scale = replace(TINY, ladder=ladder, jax_ladder=JaxLadder(ladder=ladder, device="cpu"))
    options = Options(scale=scale, out=tmp_path / "record.json")
    done = run_gpu(options, say=Log().append)
    record = json.loads((tmp_path / "record.json").read_text())
    assert record == json.loads(document(done.record))
    assert list(record) == FIELDS
    assert (record["schema_version"], record["kind"], record["complete"], record["not_quotable"]) == (1, "gpu run", True, "")
    entries = {entry["unit"]: entry for entry in record["entries"]}
    assert list(entries) == NAMES
    assert {entry["status"] for entry in entries.values()} == {"done"}, [entry["reason"] for entry in entries.values()]
    assert entries["tests on the device"]["result"]["passed"] == 1
    assert entries["tune band 1"]["result"]["entries"][0]["result"] in ("tuned", "default kept")
    timed = {entry["case"]: entry for entry in entries["small"]["result"]["entries"]}
    assert {"torch.compile band 1, eager", "reference band 4, eager", "SONew band 4 bf16, graph"} <= set(timed)
    assert entries["small"]["result"]["failures"] == {}
    assert timed["SONew band 1, graph"]["settings"]["launched"] == "eager: a CPU has no graphs"
    assert all(len(entry["samples_ms"]) == 7 for entry in timed.values())
    assert [entry["case"] for entry in entries["JAX, 700"]["result"]["entries"]] == [
        "optax.adamw",
        "SONew band 1, XLA",
        "SONew band 4, XLA",
    ]
    assert {row["verdict"] for row in record["targets"]} == {"not measured"}, "a small run says nothing about the targets"
    assert (record["device"]["type"], record["versions"]["torch"]) == ("cpu", torch.__version__)
    assert record["sources"]["kernels"].keys() == SPECS.keys()
    again = Log()
    second = run_gpu(options, say=again.append)
    assert [line.partition(": ")[2][:11] for line in again] == ["done before"] * len(NAMES)
    assert second.record["entries"] == done.record["entries"]


def test_a_case_is_timed_in_a_process_of_its_own() -> None:
    methods = Method(family=COPY, ways=(EAGER,)), Method(family=SONEW, band=1, ways=(EAGER,))
    outcome = run_timing(Timing(workload=one_tensor(3000), methods=methods, device="cpu", rounds=7), 120)
    assert (outcome.status, outcome.reason) == ("done", "")
    assert [entry["case"] for entry in outcome.result["entries"]] == ["copy", "SONew band 1, eager"]
    late = run_timing(Timing(workload=one_tensor(3000), methods=methods, device="cpu", rounds=7), 0.01)
    assert (late.status, "the worker was stopped" in late.reason) == ("unfinished", True)


def test_a_stopped_run_loses_the_running_unit_only(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_task: Any, _seconds: float) -> Outcome:
        raise KeyboardInterrupt

    runners = run.RUNNERS
    _replace(monkeypatch, Tune, interrupted)
    with pytest.raises(KeyboardInterrupt):
        _go(tmp_path)
    record = json.loads((tmp_path / "deep" / "record.json").read_text())
    assert [entry["status"] for entry in record["entries"]] == ["done"] * 2 + ["unfinished"] * 6
    assert record["complete"] is False
    monkeypatch.setattr(run, "RUNNERS", runners)
    assert _go(tmp_path).record["complete"] is True
    assert log == BEGUN


def test_an_unexpected_error_is_a_reason_and_is_tried_again(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_task: Any, _seconds: float) -> Outcome:
        msg = "no space left"
        raise OSError(msg)

    runners = run.RUNNERS
    _replace(monkeypatch, Racecheck, broken)
    said = Log()
    done = _go(tmp_path, said)
    entry = done.record["entries"][1]
    assert (entry["status"], entry["reason"], done.record["complete"]) == ("unfinished", "OSError: no space left", False)
    assert done.warning == "These speeds may not be quoted: racecheck unfinished."
    assert "[2/8] racecheck: unfinished after 0 s (OSError: no space left)" in said
    monkeypatch.setattr(run, "RUNNERS", runners)
    assert _go(tmp_path).record["complete"] is True
    assert log == [*(kind for kind in BEGUN if kind != "Racecheck"), "Racecheck"]


def test_a_failed_ladder_stands_is_said_and_stops_nothing(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    _replace(monkeypatch, Ladder, lambda _task, _seconds: Outcome(status="failed", reason="1 failed"))
    for _ in range(2):
        done = _go(tmp_path)
        assert (done.ladder_failed, done.record["complete"]) == (True, True)
        assert done.warning == "These speeds may not be quoted: tests on the device failed."
    assert log == BEGUN[1:]
    assert _go(tmp_path, fresh=True).ladder_failed
    assert log == BEGUN[1:] * 2


def test_one_stage_alone_may_not_be_quoted(tmp_path: Path, log: Log) -> None:
    done = _go(tmp_path, stages=("bench",))
    assert [entry["stage"] for entry in done.record["entries"]] == ["bench"] * 2
    assert "the ladder is not part of this run" in done.warning
    assert (done.ladder_failed, log) == (False, ["Timing"] * 2)


@pytest.mark.parametrize(
    ("stages", "status", "said"),
    [
        (("ladder", "jax"), "failed", "The JAX speeds may not be quoted: JAX tests on the device failed."),
        (("ladder", "jax"), "unfinished", "The JAX speeds may not be quoted: JAX tests on the device unfinished."),
        (("jax",), "done", "These speeds may not be quoted: the ladder is not part of this run."),
        (("ladder", "jax"), "done", ""),
    ],
)
@pytest.mark.usefixtures("log")
def test_no_jax_speed_is_quoted_from_red_jax_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stages: tuple[str, ...], status: Any, said: str
) -> None:
    _replace(monkeypatch, JaxLadder, lambda _task, _seconds: Outcome(status=status))
    done = _go(tmp_path, stages=stages)
    assert (done.warning, done.ladder_failed) == (said, status == "failed")


def test_the_budget_ends_a_run_which_the_next_one_continues(tmp_path: Path, log: Log) -> None:
    short = _go(tmp_path, budget_s=run.LEAST_S - 1)
    assert {entry["status"] for entry in short.record["entries"]} == {"unfinished"}
    assert "the budget ended before it" in short.record["entries"][0]["reason"]
    assert log == []
    assert _go(tmp_path).record["complete"] is True


def test_results_hold_for_the_same_device_versions_and_sources_only() -> None:
    device, versions, sources = identity.describe_device("cpu"), identity.describe_versions(), identity.describe_sources()
    key = identity.key_of(device, versions, sources)
    assert key == identity.key_of(identity.describe_device("cpu"), identity.describe_versions(), identity.describe_sources())
    others = [
        (device | {"driver": "other"}, versions, sources),
        (device, versions | {"triton": "0"}, sources),
        (device, versions, sources | {"sources": "other"}),
    ]
    assert len({key, *(identity.key_of(*other) for other in others)}) == 4


@pytest.mark.parametrize(
    ("printed", "driver", "clock"),
    [("580.65, 1980 MHz, 2619 MHz, 345 MHz, 2619 MHz, 700.00 W, 31", "580.65", "1980 MHz"), (None, "unknown", "unknown")],
)
def test_a_gpu_is_described_with_driver_and_clocks_where_they_can_be_read(
    monkeypatch: pytest.MonkeyPatch, printed: str | None, driver: str, clock: str
) -> None:
    class Properties:
        name, major, minor, total_memory, uuid = "NVIDIA H100", 9, 0, 85_000_000_000, "1234"

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _index: Properties)
    monkeypatch.setattr(identity, "_output", lambda command: printed if command[-1] == "GPU-1234" else "")
    found = identity.describe_device("cuda")
    assert (found["name"], found["capability"], found["memory_bytes"]) == ("NVIDIA H100", "9.0", 85_000_000_000)
    assert (found["driver"], found["clocks"]["clocks.max.sm"]) == (driver, clock)


def _call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["gpu", *map(str, arguments)])


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "gpu_problem", lambda: "this torch is built for the CPU only; install another")
    monkeypatch.setattr(run, "gpus_seen", list)


@pytest.mark.usefixtures("without_gpu")
def test_without_a_gpu_it_is_one_line_with_the_reason_and_exit_code_0() -> None:
    result = _call()
    assert result.exit_code == 0
    assert result.output.splitlines() == ["No usable GPU, nothing is measured: this torch is built for the CPU only; install another"]
    as_json = _call("--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)) == (0, {"schema_version": 1, "entries": []})
    assert "No usable GPU" in as_json.stderr


def test_a_gpu_that_is_seen_or_interpreted_away_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "gpu_problem", lambda: "the driver is too old")
    monkeypatch.setattr(run, "gpus_seen", lambda: ["/dev/nvidia0"])
    assert no_gpu() == "the driver is too old (seen: /dev/nvidia0)"
    monkeypatch.setattr(run, "gpu_problem", lambda: None)
    assert no_gpu() is None
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert "TRITON_INTERPRET is set" in str(no_gpu())


@pytest.mark.usefixtures("without_gpu")
def test_the_plan_is_listed_on_any_machine() -> None:
    result = _call("--plan")
    assert result.exit_code == 0
    assert "What `sonew-perf gpu` does" in result.output
    for line in (
        "tune band 16: 67108864 elements",
        "llama-1b, band 4 float32: AdamW fused, eager; AdamW fused, graph; AdamW foreach, eager",
    ):
        assert line in result.output
    entries = json.loads(_call("--plan", "--json").stdout)["entries"]
    assert list(dict.fromkeys(entry["stage"] for entry in entries)) == list(STAGES)
    only = json.loads(_call("--plan", "--json", "--only", "tune").stdout)["entries"]
    assert only == [entry for entry in entries if entry["stage"] == "tune"]


@pytest.mark.parametrize(
    ("arguments", "said"), [(("--only", "warp"), "'warp' is not one of"), (("--budget", "0"), "budget=0.0 is not allowed")]
)
def test_wrong_use_is_exit_code_2(arguments: tuple[str, ...], said: str) -> None:
    result = _call(*arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())


@pytest.fixture
def tiny_gpu(monkeypatch: pytest.MonkeyPatch, log: Log) -> Log:
    """A machine whose GPU is played by the CPU; cases are really timed, in this process."""
    monkeypatch.setattr(gpu_command, "no_gpu", lambda: None)
    monkeypatch.setattr(
        gpu_command, "run_gpu", lambda options, say: run_gpu(Options(scale=TINY, stages=options.stages, out=options.out), say=say)
    )
    _replace(monkeypatch, Timing, lambda task, seconds: run_timing(task, seconds, start=lambda request, _: make_timer()(request)))
    return log


def test_the_tables_of_a_run(tiny_gpu: Log, tmp_path: Path) -> None:
    result = _call("--only", "ladder", "--only", "bench", "--out", tmp_path / "record.json")
    assert result.exit_code == 0, result.output
    assert tiny_gpu == ["Ladder", "Racecheck"]
    text = " ".join(result.stdout.split())
    assert "3000, band 1: one tensor, 3000 float32 elements" in text
    assert "Targets, measured on" in text
    assert text.count("not measured not measured") == len(judge_all({}))
    assert "[4/4] 3000, peers: done" in result.stderr
    assert "may not be quoted" not in text
    printed = _call("--only", "ladder", "--only", "bench", "--out", tmp_path / "record.json", "--json")
    assert json.loads(printed.stdout) == json.loads((tmp_path / "record.json").read_text())


@pytest.mark.usefixtures("tiny_gpu")
def test_only_a_failed_ladder_is_exit_code_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _replace(monkeypatch, Ladder, lambda _task, _seconds: Outcome(status="failed", reason="1 failed"))
    result = _call("--only", "ladder", "--out", tmp_path / "record.json")
    assert result.exit_code == 1
    assert "These speeds may not be quoted: tests on the device failed." in result.output


@pytest.mark.usefixtures("tiny_gpu")
def test_ctrl_c_is_exit_code_130_and_a_record_that_cannot_be_written_2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(_task: Any, _seconds: float) -> Outcome:
        raise KeyboardInterrupt

    (tmp_path / "file").touch()
    runners = run.RUNNERS
    _replace(monkeypatch, Ladder, interrupted)
    result = _call("--only", "ladder", "--out", tmp_path / "record.json")
    assert (result.exit_code, "the same command goes on from there" in result.stderr) == (130, True)
    monkeypatch.setattr(run, "RUNNERS", runners)
    result = _call("--only", "ladder", "--out", tmp_path / "file" / "record.json")
    assert (result.exit_code, "Pass a writable --out" in result.stderr) == (2, True)
