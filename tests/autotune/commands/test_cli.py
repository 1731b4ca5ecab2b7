"""The command line from outside: documents, exit codes, messages, and what an interruption leaves."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sonew import paths
from sonew_autotune import api
from sonew_autotune.cli import app
from sonew_autotune.commands import inspection
from sonew_autotune.device import Device, NoDeviceError
from sonew_autotune.search import tuner
from sonew_autotune.store import evidence as evidence_module
from sonew_autotune.trials.trial import Request, TrialRequest
from tests.autotune.samples import FakeMachine

SMALL = ("--device", "cpu", "--size", "3000", "--trials", "2")


def invoke(*arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command."""
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def entries(text: str) -> list[dict[str, Any]]:
    """The entries of a --json document."""
    document = json.loads(text)
    assert document["schema_version"] == 1
    return list(document["entries"])


class FakeWorker(FakeMachine):
    """A machine in place of the worker process; Ctrl-C comes after so many trials."""

    interrupt_after = 10**6

    def __init__(self, _make_answer: object) -> None:
        super().__init__(lambda config: 1.0 if config["block"] == 2048 else 2.0)
        self.closed = False

    def answer(self, request: Request, timeout_s: float) -> Any:
        if isinstance(request, TrialRequest) and len(self.tried) >= self.interrupt_after:
            raise KeyboardInterrupt
        return super().answer(request, timeout_s)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fake_worker(monkeypatch: pytest.MonkeyPatch) -> type[FakeWorker]:
    class Fake(FakeWorker):
        pass

    monkeypatch.setattr(api, "Worker", Fake)
    return Fake


def test_run_show_explain_and_reuse_on_the_real_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_module, "NOISY_SPREAD", math.inf)  # a busy test machine is judged as a quiet one
    monkeypatch.setattr(tuner, "final_seconds", lambda _default_ms: 0.5)  # as few rounds as a stored result needs
    code, out, _ = invoke("run", *SMALL, "--band", "1", "--json")
    assert code == 0
    (result,) = entries(out)
    assert result["result"] in ("tuned", "default kept")
    assert result["problem"]["total"] == 3000
    evidence = result["stored"]["evidence"]
    assert evidence["rounds"] >= 7
    assert {"default", "best", "adamw", "copy"} == set(evidence["samples"])
    assert evidence["trials"] == 2

    code, out, _ = invoke("show", "--json")
    (shown,) = entries(out)
    assert (code, shown["usable"], shown["reasons"]) == (0, True, [])
    assert {name: shown[name] for name in ("key", "kind", "config", "evidence")} == result["stored"]

    code, out, _ = invoke("explain", "--band", "1", "--size", "3000", "--device", "cpu", "--json")
    (explained,) = entries(out)
    assert code == 0
    assert explained["plan"]["backend"] == "cpu"
    assert explained["plan"]["config"] == result["stored"]["config"]
    assert explained["plan"]["provenance"].startswith("tuned entry (measured, user store, exact size bucket")
    assert explained["key"] == result["stored"]["key"]
    assert [stored["used"] for stored in explained["stored"]] == [True]
    assert {backend["backend"]: backend["available"] for backend in explained["backends"]}["cpu"] is True

    start = time.monotonic()
    code, out, _ = invoke("run", *SMALL, "--band", "1", "--json")
    (again,) = entries(out)
    assert (code, again["result"], again["stored"]) == (0, "reused", result["stored"])
    assert time.monotonic() - start < 10


def test_the_table_names_problem_gain_baselines_and_what_to_do_next(fake_worker: type[FakeWorker]) -> None:
    assert fake_worker.interrupt_after > 0
    code, out, _ = invoke("run", "--device", "cpu", "--size", "3000", "--band", "1", "--trials", "80")
    assert code == 0
    row = next(line for line in out.splitlines() if "band 1, 3000, float32" in line)
    cells = re.split(r"\s{2,}", row.strip())
    assert cells[1:6] == ["2.000", "1.000", "2.00x (2.00-2.00)", "2.00", "55%"]
    assert re.fullmatch(r"tuned, (\d+) of \1 tried", cells[-1])
    assert f"Stored in {paths.store_path()}" in out
    assert "from sonew.torch import SONew" in out
    assert "Times spread by up to 26% of their median: the machine was busy" in out
    code, out, _ = invoke("show")
    assert "block=2048" in out
    assert "1.000 ms, 2.00x (2.00-2.00)" in out
    code, out, _ = invoke("explain", "--band", "2", "--size", "3000", "--device", "cpu")
    assert code == 0
    assert "not used: user store, band 1" in out
    assert "band is 1, here 2" in out
    assert "no stored entry fits" in out


def test_ctrl_c_keeps_finished_problems_and_trials(fake_worker: type[FakeWorker]) -> None:
    fake_worker.interrupt_after = 3  # two trials of band 1, one of band 2
    arguments = ("run", "--device", "cpu", "--size", "3000", "--band", "1", "--band", "2", "--trials", "2", "--json")
    code, out, err = invoke(*arguments)
    assert code == 130
    assert [result["problem"]["band"] for result in entries(out)] == [1]
    assert "the same command goes on from here" in err
    (shown,) = entries(invoke("show", "--json")[1])
    assert shown["key"]["band"] == 1

    fake_worker.interrupt_after = 10**6
    code, out, _ = invoke(*arguments)
    first, second = entries(out)
    assert (code, first["result"], second["note"]) == (0, "reused", "resumed with 1 finished trials")


def _finished_trials(state: Path) -> int:
    return sum(journal.read_text(encoding="utf-8").count('"record"') for journal in (state / "studies").glob("*.journal"))


def test_a_killed_run_resumes_without_losing_a_finished_trial(fake_worker: type[FakeWorker]) -> None:
    fake_worker.interrupt_after = 1
    command = [sys.executable, "-m", "sonew_autotune.cli", "run", "--device", "cpu", "--size", "3000", "--band", "1", "--trials", "60"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        limit = time.monotonic() + 60
        while _finished_trials(paths.state_dir()) < 2 and time.monotonic() < limit:
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    finished = _finished_trials(paths.state_dir())
    assert finished >= 2
    assert not paths.store_path().exists()
    wanted = str(finished + 1)  # one trial more than the killed run finished is all that may be asked for
    code, out, _ = invoke("run", "--device", "cpu", "--size", "3000", "--band", "1", "--trials", wanted, "--json")
    (result,) = entries(out)
    assert (code, result["note"]) == (0, f"resumed with {finished} finished trials")
    assert result["stored"]["evidence"]["trials"] == finished + 1
    assert _finished_trials(paths.state_dir()) == finished + 1


def test_a_corrupt_store_is_a_visible_miss_and_never_lost(fake_worker: type[FakeWorker]) -> None:
    assert fake_worker.interrupt_after > 0
    path = paths.store_path()
    path.parent.mkdir(parents=True)
    path.write_text("{broken")
    code, out, err = invoke("show", "--json")
    assert (code, entries(out)) == (2, [])
    assert "not readable as JSON" in err
    code, out, _ = invoke("explain", "--band", "1", "--size", "3000", "--device", "cpu", "--json")
    assert code == 0
    assert "not readable as JSON" in entries(out)[0]["problems"][0]
    code, _, err = invoke("run", *SMALL, "--band", "1", "--json")
    assert code == 0
    assert "moved to" in err
    assert [aside.read_text() for aside in path.parent.glob("*.corrupt-*")] == ["{broken"]
    assert invoke("show", "--json")[0] == 0


def test_a_gpu_that_cannot_be_used_is_said_loudly(fake_worker: type[FakeWorker], monkeypatch: pytest.MonkeyPatch) -> None:
    assert fake_worker.interrupt_after > 0
    seen = Device(type="cpu", warning="A GPU is present but cannot be used: update")
    monkeypatch.setattr(api, "find_device", lambda _: seen)
    code, out, err = invoke("run", *SMALL, "--band", "1", "--json")
    assert (code, len(entries(out))) == (0, 1)
    assert "warning: A GPU is present but cannot be used: update" in err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", "--band", "99"), 2, "band=99 is not one of"),
        (("run", "--device", "tpu"), 2, "device='tpu' is not one of"),
        (("run", "--effort", "huge"), 2, "effort='huge' is not one of"),
        (("run", "--trials", "0"), 2, "trials=0 is not allowed"),
        (("run", "--seed", "-1"), 2, "seed=-1 is not allowed"),
        (("run", "--sampler", "tpee"), 2, "sampler='tpee' is not one of"),
        (("run", "--device", "cuda:x"), 2, "device='cuda:x' is not cuda:<number>"),
        (("run", "--target", "cuda:90", "--sampler", "random"), 2, "--sampler has no meaning with --target=cuda:90"),
        (("run", "--replay", "r.json", "--band", "1"), 2, "--band has no meaning with --replay=r.json"),
        (("run", "--target", "h100"), 2, "target='h100' is not of the form"),
        (("explain", "--tuning", "maybe"), 2, "tuning='maybe' is not one of"),
        (
            ("run", "--target", "cuda:999"),
            2,
            "target='cuda:999' cannot be used: the compiler died (signal 6). Use for example one of ['cuda:80',",
        ),
        (("run", "--no-such-option"), 2, "No such option"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(arguments: tuple[str, ...], code: int, message: str) -> None:
    got, out, err = invoke(*arguments)
    assert got == code
    assert message in err
    assert "Traceback" not in err
    assert out == ""


def test_a_place_that_cannot_be_written_is_one_line_with_the_fix(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    for option, message in (("--state-dir", "the state folder"), ("--store", "the store")):
        code, out, err = invoke("run", *SMALL, "--band", "1", option, str(blocked / "below"))
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {message} {blocked}/below cannot be written (")
        assert f"Pass {option}" in err
        assert len(err.splitlines()) == 1


def test_a_file_error_in_a_command_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied", "tuned.json")

    monkeypatch.setattr(inspection, "stored_entries", refuse)
    code, out, err = invoke("show")
    assert (code, out) == (2, "")
    assert err.startswith("error: [Errno 13] Permission denied: 'tuned.json'. ")


def test_no_device_is_code_3(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: str) -> None:
        msg = "device='cuda' cannot be used"
        raise NoDeviceError(msg)

    monkeypatch.setattr(api, "find_device", none)
    code, _, err = invoke("run", "--device", "cuda")
    assert (code, err) == (3, "error: device='cuda' cannot be used\n")


def test_help_teaches() -> None:
    for command in ("run", "show", "explain", "compile", "warm"):
        code, out, _ = invoke(command, "--help")
        assert code == 0
        assert f"sonew-autotune {command}" in out
        assert "Exit codes" in out
