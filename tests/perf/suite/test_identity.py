from __future__ import annotations

import os
import shlex
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from sonew_kernels.spec import source_hash
from sonew_perf.machine import describe
from sonew_perf.records.machines import machine_of
from sonew_perf.sources import Source, read_source
from sonew_perf.suite.identity import describe_machine, new_run, repeat_command
from sonew_perf.system import describe_host, memory_bytes


def _git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=trunk", "-c", "commit.gpgsign=false"]
    environment = {**os.environ, "GIT_COMMITTER_DATE": "2026-01-02T03:04:05+00:00", "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True, env=environment)  # noqa: S607  # from PATH
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit."""
    (tmp_path / "code.py").write_text("a = 1\n")
    _git(tmp_path, "init")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_a_clean_checkout_is_its_commit(checkout: Path) -> None:
    head = _git(checkout, "rev-parse", "HEAD")
    found = read_source(checkout)
    assert (found.commit, found.branch, found.modified, found.diff) == (head, "trunk", False, "")
    assert datetime.fromisoformat(found.commit_date) == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    _git(checkout, "checkout", "--detach")
    assert read_source(checkout).branch == ""


def test_what_is_not_committed_has_a_hash_that_changes_with_its_content(checkout: Path) -> None:
    def diff() -> str:
        found = read_source(checkout)
        assert found.modified is True
        return found.diff

    (checkout / "code.py").write_text("a = 2\n")
    seen = [diff()]
    (checkout / "code.py").write_text("a = 3\n")
    seen.append(diff())
    (checkout / "new.py").write_text("b = 1\n")
    seen.append(diff())
    (checkout / "new.py").write_text("b = 2\n")
    seen.append(diff())
    assert len(set(seen)) == 4
    assert all(len(value) == 12 for value in seen)
    (checkout / "new.py").write_text("b = 1\n")
    assert diff() == seen[2]  # the same difference, the same hash


def test_what_is_no_checkout_says_nothing(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = checkout / "inside"
    inside.mkdir()
    assert read_source(inside) == Source()  # a package installed somewhere below another project's checkout
    (checkout / ".git").rename(checkout / "git")
    assert read_source(checkout) == Source()
    (checkout / "git").rename(checkout / ".git")
    assert read_source(checkout) != Source()
    monkeypatch.setenv("PATH", "")
    assert read_source(checkout) == Source()


CPUINFO = """processor\t: 0
model name\t: Some CPU
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu avx2 fma avx512f hypervisor

processor\t: 1
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu avx2
"""


def test_the_host_is_read_from_the_system(tmp_path: Path) -> None:
    for name, text in {
        "proc/cpuinfo": CPUINFO,
        "proc/meminfo": "MemTotal:       16777216 kB\nMemAvailable:    1024 kB\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    host = describe_host(tmp_path)
    assert (host["logical_cores"], host["physical_cores"], host["flags"]) == (2, 1, "avx2 fma avx512f")
    assert (host["memory_gib"], host["governor"], host["virtual"]) == (16.0, "powersave", True)
    assert memory_bytes("MemAvailable", tmp_path) == 2**20
    nowhere = describe_host(tmp_path / "nowhere")
    assert (nowhere["governor"], nowhere["flags"], "memory_gib" in nowhere) == ("unknown", "unknown", False)


def test_a_run_says_machine_sources_and_the_command_that_does_it_again(checkout: Path) -> None:
    now = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
    arguments = ["run", "--label", "two words"]
    run = new_run(describe_machine("cpu"), arguments=arguments, label="two words", now=now, root=checkout)
    assert run.id.startswith("20260506T070809Z-")
    assert (run.date, run.label) == ("2026-05-06T07:08:09+00:00", "two words")
    assert shlex.split(run.command) == ["sonew-perf", *arguments]
    assert (run.modified, len(run.commit)) == (False, 40)
    details = run.machine.details
    assert (details["kernel_cpu"], details["kernel_triton"]) == (source_hash("cpu"), source_hash("triton"))
    assert {"python", "torch", "jax", "seed", "governor", "virtual"} <= set(details)
    assert run.machine.id == machine_of(describe(torch.device("cpu"))).id  # the entries' machine is the run's


def test_the_command_says_what_was_measured_and_not_where_it_went_or_that_it_was_new() -> None:
    places = ["--store", "/some one/perf", "--output=out.json", "--no-store", "--once", "--output", "--once"]
    assert repeat_command(["run", *places, "--only", "step/*"]) == "sonew-perf run --only 'step/*'"
    assert repeat_command(["run", "--effort", "full", "--store"]) == "sonew-perf run --effort full"
