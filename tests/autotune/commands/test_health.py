"""`doctor` from outside: this machine, a machine without torch, and what a problem does to the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sonew import paths
from sonew_autotune.commands import health
from sonew_autotune.health.doctor import CHECKS
from sonew_autotune.settings import Exit
from tests.autotune.commands.command_line import entries, invoke
from tests.autotune.health.planted import machine


def test_doctor_looks_at_this_machine() -> None:
    code, out, err = invoke("doctor", "--json")
    lines = entries(out)
    assert err == ""
    assert {line["check"] for line in lines} == {name for name, _ in CHECKS}
    assert all(set(line) == {"check", "level", "text", "fix"} for line in lines)
    problems = [line for line in lines if line["level"] == "problem"]
    assert code == (1 if problems else 0)
    assert all(line["fix"] for line in problems)
    assert not [line for line in lines if "could not be checked" in line["text"]]
    assert any(line["text"] == "the CPU backend is built and loads" for line in lines)
    (targets,) = [line for line in lines if line["check"] == "targets"]
    assert "only ever compiled, never run" in targets["text"]
    assert "cuda:90 (0 static entries)" in targets["text"]
    assert not paths.store_path().parent.exists(), "looking makes nothing"


def test_a_problem_is_shown_with_its_fix_and_is_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    system = machine(tmp_path, python="3.9.1", environment={"SONEW_STORE": "[bold]\x1b[31m"})
    assert health.doctor(as_json=False, system=system) is Exit.CHECK_FAILED
    out = capsys.readouterr().out
    assert (
        "problem  python: Python 3.9.1 is not supported (<3.13,>=3.11)\n         fix: make an environment with a Python <3.13,>=3.11" in out
    )
    assert "note     environment: SONEW_STORE=[bold]\\x1b[31m sets the user's store" in out
    assert "1 problem, " in out
    assert health.doctor(as_json=True, system=machine(tmp_path)) is Exit.DONE
    assert {line["level"] for line in json.loads(capsys.readouterr().out)["entries"]} == {"ok", "note"}


def test_doctor_works_where_torch_does_not_load() -> None:
    code = "import sys\nsys.modules['torch'] = sys.modules['triton'] = None\nfrom sonew_autotune.cli import app\napp(['doctor', '--json'])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    lines = entries(done.stdout)
    assert {line["check"] for line in lines} == {name for name, _ in CHECKS}
    assert any("could not be checked: ModuleNotFoundError" in line["text"] for line in lines if line["check"] == "cores")


def test_a_broken_store_is_a_problem(tmp_path: Path) -> None:
    store = tmp_path / "tuned.json"
    store.write_text("{broken")
    code, out, _ = invoke("doctor", "--store", str(store), "--json")
    assert code == 1
    (line,) = [line for line in entries(out) if line["check"] == "store" and line["level"] == "problem"]
    assert "not readable as JSON" in line["text"]
    assert line["fix"] == "sonew-autotune check tells more"
