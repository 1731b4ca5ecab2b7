from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sonew_perf.gpu.ladder import run_ladder, run_racecheck
from sonew_perf.gpu.plan import JaxLadder, Ladder, Racecheck
from sonew_perf.process import ROOT

PASSING = "def test_passes():\n    assert True\n"
FAILING = "def test_fails():\n    assert 1 == 2, 'two is not one'\n"
SKIPPED = "import pytest\n\n\n@pytest.mark.skip(reason='no GPU')\ndef test_skipped():\n    pass\n"
MARKED = "import pytest\n\n\n@pytest.mark.full\ndef test_marked():\n    pass\n"


def _ladder(folder: Path, **files: str) -> Ladder:
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)
    return Ladder(tests=str(folder), marker="not full")


@pytest.mark.parametrize(
    ("ladder", "files"),
    [(Ladder(), ["test_graphs.py", "test_groups.py", "test_step.py"]), (JaxLadder().ladder, ["test_directions.py"])],
    ids=["kernels", "jax"],
)
def test_the_real_ladder_is_there(ladder: Ladder, files: list[str]) -> None:
    assert [path.name for path in sorted((ROOT / ladder.tests).glob("test_*.py"))] == files


def test_tests_that_pass_are_counted_and_a_file_without_marked_tests_is_no_failure(tmp_path: Path) -> None:
    outcome = run_ladder(_ladder(tmp_path, one=PASSING * 2 + PASSING.replace("passes", "too"), two=MARKED), 120)
    assert (outcome.status, outcome.reason, outcome.result["passed"]) == ("done", "2 passed", 2)
    assert [(entry["file"], entry["exit"]) for entry in outcome.result["files"]] == [("test_one.py", 0), ("test_two.py", 5)]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"one": PASSING, "two": FAILING}, "1 passed, 1 failed; test_two.py (exit 1)"),
        ({"one": PASSING, "two": SKIPPED}, "1 passed, 1 skipped"),
        ({"one": MARKED}, "no test ran"),
    ],
    ids=["a failing test", "a skipped test", "no test"],
)
def test_a_red_skipped_or_empty_ladder_failed(tmp_path: Path, files: dict[str, str], said: str) -> None:
    outcome = run_ladder(_ladder(tmp_path, **files), 120)
    assert (outcome.status, outcome.reason) == ("failed", said)
    shown = "\n".join(line for entry in outcome.result["files"] for line in entry.get("output", ()))
    assert ("two is not one" in shown) == ("failed" in said)


def test_without_the_repository_there_is_no_ladder(tmp_path: Path) -> None:
    outcome = run_ladder(Ladder(tests=str(tmp_path)), 10)
    assert (outcome.status, "run from a checkout" in outcome.reason) == ("failed", True)


def test_a_ladder_past_its_time_is_stopped_with_all_its_processes_and_is_not_finished(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    saying = f"pathlib.Path({str(note)!r}).write_text(str(os.getpid()))"
    slow = f"import os, pathlib, time\n\n\ndef test_slow():\n    {saying}\n    time.sleep(600)\n"
    started = time.monotonic()
    outcome = run_ladder(_ladder(tmp_path, one=slow), 2)
    assert (outcome.status, outcome.reason) == ("unfinished", "the time ended inside test_one.py")
    assert time.monotonic() - started < 60
    if note.exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int(note.read_text()), 0)


def test_a_sanitizer_that_is_not_there_is_said_and_is_no_failure() -> None:
    outcome = run_racecheck(Racecheck(program="sanitizer-that-nobody-has"), 10)
    assert (outcome.status, outcome.reason) == ("done", "sanitizer-that-nobody-has: not present")


@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        ('echo "$@"; echo "RACECHECK SUMMARY: 0 hazards"', "done", "no race found"),
        ("exit 9", "failed", "the sanitizer found races"),
        ("exit 3", "failed", "exit 3"),
        ("exec sleep 60", "unfinished", "the time ended inside the sanitizer"),
    ],
)
def test_the_sanitizers_verdict_is_its_exit_status(tmp_path: Path, script: str, status: str, said: str) -> None:
    program = tmp_path / "sanitizer"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    outcome = run_racecheck(Racecheck(program=str(program)), 1)
    assert (outcome.status, outcome.reason) == (status, said)
    if status == "done":
        assert "--tool racecheck --error-exitcode 9" in outcome.result["output"][0]


def test_the_sanitized_steps_are_steps_of_the_kernels() -> None:
    """The same program on the CPU: two steps of every band."""
    from sonew_perf.gpu.ladder import STEPS

    text = STEPS.format(bands=(0, 1)).replace('"cuda"', '"cpu"').replace('"triton"', '"cpu"').replace("torch.cuda.synchronize()", "")
    scope: dict[str, object] = {}
    exec(compile(text, "steps", "exec"), scope)  # noqa: S102  # our own text
    optimizer = scope["optimizer"]
    assert {int(state["count"]) for state in optimizer.state.values()} == {2}  # type: ignore[attr-defined]
