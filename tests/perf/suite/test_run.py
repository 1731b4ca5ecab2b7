from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sonew_autotune.store.journal import LockedError, locked
from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.turns import DeviceBusyError
from sonew_perf.jax.request import JaxTiming
from sonew_perf.process import Finished
from sonew_perf.records.files import Entry
from sonew_perf.records.machines import machine_of
from sonew_perf.suite import processes, run
from sonew_perf.suite.groups import Group, all_groups
from sonew_perf.suite.imports import measure_imports
from sonew_perf.suite.processes import run_jax, run_torch
from sonew_perf.suite.run import Runner, entries_of, run_groups, why_not
from sonew_perf.suite.torch_process import Request, Timed, time_group
from sonew_perf.suite.tuning import measure_tuner, tuner_entry
from tests.perf.suite.made import JAX, MACHINE, SIZE, Silence, host_group, phase_group, step_group, timed

GIB = 2**30


def _all(groups: Sequence[Group], runner: Runner, **more: object) -> list[list[Entry]]:
    return list(run_groups(groups, lambda _: 7, told=Silence(), runner=runner, free=lambda _: 64 * GIB, **more))  # type: ignore[arg-type]  # passed on


def _answers(answers: Mapping[str, Callable[[], Timed | Failure]]) -> Runner:
    return lambda group, _rounds, _seconds, _end: answers[group.name]()


def test_a_crash_an_error_and_a_case_that_failed_are_entries_and_the_rest_goes_on() -> None:
    crashing, raising, partial, good = step_group(0), step_group(1), step_group(4), phase_group(1)
    garbled = phase_group(4)

    def explode() -> Timed:
        msg = "no such file"
        raise OSError(msg)

    answers: dict[str, Callable[[], Timed | Failure]] = {
        crashing.name: lambda: Failure("crash", "the worker process died (signal 11)"),
        raising.name: explode,
        partial.name: lambda: Timed(timed(partial)[:-1], {"SONew band 4": "wrong: off by one"}),
        garbled.name: lambda: Timed([{"no": "case"}], {}),
        good.name: lambda: Timed(timed(good), {}),
    }
    done = _all([crashing, raising, partial, garbled, good], _answers(answers))
    assert [[entry.get("status", "done") for entry in entries] for entries in done] == [
        ["failed"] * 4,
        ["failed"] * 4,
        ["done"] * 3 + ["failed"],
        ["failed"] * 4,
        ["done"] * 4,
    ]
    assert {entry["reason"] for entry in done[0]} == {"crash: the worker process died (signal 11)"}
    assert {entry["reason"] for entry in done[1]} == {"error: OSError: no such file"}
    assert (done[2][-1]["case"], done[2][-1]["reason"]) == ("SONew band 4", "wrong: off by one")
    assert {entry["reason"] for entry in done[3]} == {"error: KeyError: 'case'"}
    assert not any("samples_ms" in entry for entry in [*done[0], *done[1], done[2][-1], *done[3]])
    for entry in [entry for entries in done for entry in entries]:
        assert {"kind", "kernel", "case", "settings", "machine", "date", "group", "framework", "load_before", "load_after"} <= set(entry)


def test_what_cannot_run_is_skipped_with_its_reason_and_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_arguments: object) -> Timed:
        pytest.fail("a group was started")

    on_gpu = Group(what="step", effort="quick", framework="torch", device="cuda", workload=JAX.workload, bands=(1,))
    (absent,) = _all([on_gpu], never, unusable={"cuda": "the driver is too old"})
    assert {(entry["status"], entry["reason"], entry["machine"]["device"]) for entry in absent} == {
        ("skipped", "the driver is too old", "no usable GPU")
    }
    (small,) = run_groups([step_group(1)], lambda _: 7, told=Silence(), runner=never, free=lambda _: 1000)
    assert {entry["status"] for entry in small} == {"skipped"}
    assert small[0]["reason"].startswith("not enough memory: about 0.0 GiB are needed")
    monkeypatch.setattr(run, "installed_version", lambda _: "not installed")
    (without,) = _all([JAX], never)
    assert {(entry["status"], entry["reason"]) for entry in without} == {("skipped", "JAX is not installed: pip install 'sonew[jax]'")}
    monkeypatch.setattr(run, "jax_gpu_problem", lambda: "JAX sees no GPU")
    (unseen,) = _all([replace(JAX, device="cuda")], never, unusable={"cuda": "the driver is too old"})
    assert {entry["reason"] for entry in unseen} == {"the driver is too old"}
    assert why_not(replace(JAX, device="cuda"), {}, free=lambda _: None) == "JAX sees no GPU"


def test_an_interruption_keeps_the_groups_before_it() -> None:
    def interrupted() -> Timed:
        raise KeyboardInterrupt

    first, second = step_group(0), step_group(1)
    told = Silence()
    groups = run_groups(
        [first, second],
        lambda _: 7,
        told=told,
        runner=_answers({first.name: lambda: Timed(timed(first), {}), second.name: interrupted}),
        free=lambda _: None,
    )
    kept = [next(groups)]
    with pytest.raises(KeyboardInterrupt):
        next(groups)
    assert (told.begun, told.ended) == ([first.name, second.name], [first.name])
    assert [[entry["case"] for entry in entries] for entries in kept] == [[case["case"] for case in first.cases]]


def test_peers_outside_the_main_group_are_series_of_their_own() -> None:
    group = step_group(8, 16, state="bfloat16", main=False)
    entries = entries_of(group, Timed(timed(group), {}), MACHINE)
    assert [entry["settings"].get("beside") for entry in entries] == ["bands 8 16, bfloat16 state"] * 2 + [None] * 2
    assert [entry["dtype"] for entry in entries] == ["float32"] * 2 + ["float32, bfloat16 state"] * 2


def test_every_process_describes_the_same_machine() -> None:
    jax_says = {"device": "Some CPU", "type": "cpu", "threads": 2, "jax": "0.10.2"}
    here = {**MACHINE, "flags": "avx2 fma"}
    (one, *_) = entries_of(JAX, Timed([{**timed(JAX)[0], "machine": jax_says}], {}), here)
    assert one["machine"] == {**jax_says, "flags": "avx2 fma"}
    assert machine_of(one["machine"]).id == machine_of(here).id


def test_a_real_process_checks_and_times_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as these tests have it: waiting for a busy second core would be most of the time
    answer = run_torch(step_group(0), 7, 120)
    assert isinstance(answer, Timed)
    assert answer.reasons == {}
    entries = entries_of(step_group(0), answer, {})
    assert [(entry["case"], len(entry["samples_ms"])) for entry in entries] == [
        (name, 7) for name in ("AdamW fused", "AdamW foreach", "copy", "SONew band 0")
    ]
    ours = entries[-1]
    assert (ours["kernel"], ours["framework"], ours["dtype"], ours["bytes_moved"]) == ("step", "torch", "float32", (24 + 12) * SIZE)
    assert ours["plans"][0]["backend"] == "cpu"
    assert ours["peak_bytes"] > ours["state_bytes"] > 0


def test_phases_are_timed_beside_a_copy_and_keep_their_samples() -> None:
    def unchecked(_case: object) -> None:
        pass

    answer = time_group(Request(phase_group(1), 7), check=unchecked)
    entries = entries_of(phase_group(1), answer, {})
    assert [entry["kernel"] for entry in entries] == ["prologue", "direction", "norms", "update"]
    assert {entry["case"] for entry in entries} == {"SONew band 1"}
    assert all(len(entry["samples_ms"]) == 7 and set(entry["against"]) == {"copy"} for entry in entries)
    assert [entry["bytes_moved"] for entry in entries] == [None, (8 + 24) * SIZE, None, 12 * SIZE]


def test_the_hosts_part_has_every_case() -> None:
    entries = entries_of(host_group(), time_group(Request(host_group(), 7)), {})
    assert [entry.get("status", "done") for entry in entries] == ["done"] * 8
    assert entries[0]["workload"] == {"name": "one tensor", "tensors": 1, "elements": 1, "dtype": "float32"}


PLANTED = """
import sys
import sonew_perf.suite.jax_process as process
from sonew_perf.jax.request import JaxTiming
real = process.stepper
def planted(method, device):
    step = real(method, device)
    return lambda params, grads: [1.01 * param for param in params] if method.band else step(params, grads)
process.stepper = planted
import json
result = process.check_and_time(JaxTiming.from_json(sys.argv[1]))
print("torch" in sys.modules, json.dumps(result))
"""


def test_jax_checks_and_times_without_torch_and_does_not_time_what_is_wrong() -> None:
    assert JAX.workload is not None
    timing = JaxTiming(workload=JAX.workload, methods=JAX.methods, device="cpu", rounds=7)
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", PLANTED, timing.to_json()], capture_output=True, text=True, check=True, timeout=120, env=environment
    )
    loaded, _, said = done.stdout.partition(" ")
    result = json.loads(said)
    assert loaded == "False"
    assert [entry["case"] for entry in result["entries"]] == ["optax.adamw", "SONew band 0, XLA"]
    assert list(result["failures"]) == ["SONew band 1, XLA"]
    assert result["failures"]["SONew band 1, XLA"].startswith("wrong: element ")


def test_what_became_of_jaxs_process_is_the_groups_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    result = {
        "workload": {},
        "machine": MACHINE,
        "load_before": 0.1,
        "date": "",
        "entries": [{"case": "optax.adamw"}],
        "failures": {"a": "b"},
    }

    def ends(status: int | None, output: str = "") -> Callable[..., Finished]:
        def fake(command: Sequence[str], _seconds: float, environment: Mapping[str, str]) -> Finished:
            assert environment["JAX_PLATFORMS"] == "cpu"
            Path(command[-1]).write_text(json.dumps(result))
            return Finished(status, output)

        return fake

    monkeypatch.setattr(processes, "run_process", ends(0))
    answer = run_jax(JAX, 7, 9)
    assert isinstance(answer, Timed)
    assert (answer.entries[0]["kind"], answer.reasons) == ("jax step time", {"a": "b"})
    monkeypatch.setattr(processes, "run_process", ends(None))
    assert run_jax(JAX, 7, 9) == Failure("timeout", "no result after 9 s, the process was stopped")
    monkeypatch.setattr(processes, "run_process", ends(1, "one\nMemoryError"))
    assert run_jax(JAX, 7, 9) == Failure("crash", "MemoryError")


def test_a_group_waits_for_whoever_times_on_the_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lock = tmp_path / "device.lock"
    monkeypatch.setattr(processes, "lock_of", lambda _name: lock)

    def held(*_arguments: object) -> Timed:
        with pytest.raises(LockedError), locked(lock, wait=False):
            pass
        return Timed([], {"it": "ran"})

    monkeypatch.setattr(processes, "run_torch", held)
    assert processes.run_group(step_group(1), 7, 1.0) == Timed([], {"it": "ran"})
    with locked(lock, wait=False):
        for seconds, end in ((0.0, math.inf), (60.0, 0.0)):
            with pytest.raises(DeviceBusyError):
                processes.run_group(step_group(1), 7, seconds, end)
    monkeypatch.setattr(processes, "measure_tuner", lambda *_arguments: held().entries)
    with pytest.raises(pytest.fail.Exception):  # the tuner takes its own turns, so nothing is held around it
        processes.run_group(Group(what="tuner", effort="quick", framework="torch"), 7, 1.0)


def test_imports_take_turns_and_ours_says_what_it_takes_beyond_the_frameworks() -> None:
    asked: list[str] = []

    def once(module: str, _limit: float) -> float:
        asked.append(module)
        return 9.0 if len(asked) <= 2 else {"torch": 1.0, "sonew.torch": 1.25}[module]  # the first round warms up

    entries = measure_imports("torch", 7, once=once)
    assert isinstance(entries, list)
    assert sorted(asked) == ["sonew.torch"] * 8 + ["torch"] * 8
    assert [entry["case"] for entry in entries] == ["torch", "sonew.torch"]
    assert entries[1]["samples_ms"] == [1250.0] * 7
    assert entries[1]["against"]["torch"]["median"] == pytest.approx(1.25)
    assert (entries[1]["beyond_ms"], "beyond_ms" in entries[0]) == (250.0, False)
    broken = Failure("error", "ImportError: no")
    assert measure_imports("torch", 7, once=lambda *_: broken) == broken


def test_a_fresh_interpreter_is_timed_from_inside() -> None:
    entries = measure_imports("", 1)
    assert isinstance(entries, list)
    assert 0 < entries[0]["median_ms"] < 60_000


def test_a_search_is_its_trials_seconds() -> None:
    (group,) = (group for group in all_groups() if group.name == "tuner/cpu")
    (entry,) = entries_of(
        group, Timed([tuner_entry({"seconds": [3.0, 1.0, 2.0], "wall_s": 9.0, "failures": ["compile: no"]})], {}), MACHINE
    )
    assert (entry["kernel"], entry["machine"], entry["workload"]["elements"]) == ("tuner", MACHINE, 2**16)
    assert (entry["samples"], entry["unit"], entry["median"]) == ([3.0, 1.0, 2.0], "s", 2.0)
    assert (entry["trials"], entry["trial_failures"], entry["wall_s"]) == (3, 1, 9.0)


@pytest.mark.full
def test_the_tuner_is_really_timed() -> None:
    found = measure_tuner("cpu", 120)
    assert isinstance(found, list)
    (entry,) = found
    assert entry["trials"] >= 1
    assert all(seconds > 0 for seconds in entry["samples"])
