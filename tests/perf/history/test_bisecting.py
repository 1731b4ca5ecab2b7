from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from sonew_perf.history.bisecting import bisect_command, clean_commit
from tests.perf.history.made import a_run, a_series, commit

GOOD, BAD = commit(1), commit(2)
HOSTILE = "x'; touch broken; echo \"$(touch broken)"


def test_the_command_compares_the_series_own_case_with_the_last_good_commit() -> None:
    start, script = bisect_command(GOOD, BAD, 1.05, a_series()).split(" && git bisect run sh -c ")
    assert shlex.split(start) == ["git", "bisect", "start", BAD, GOOD]
    [inner] = shlex.split(script)
    assert shlex.split(inner.split(";")[1]) == [
        *("sonew-perf", "compare", GOOD, ".", "--framework", "torch", "--band", "1", "--size", "1048576"),
        *("--tolerance", "2.5", "--fail-on", "2.5"),
    ]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"dtype": "float32, bfloat16 state", "kernel": "direction"},
            f"compare {GOOD} . --framework torch --band 1 --size 1048576 --state bfloat16 ",
        ),
        ({"workload": "gpt2-small", "variant": "tuning=off"}, f"compare {GOOD}@off .@off --framework torch --band 1 --model gpt2-small "),
        ({"framework": "jax", "case": "SONew band 1, XLA"}, f"compare {GOOD} . --framework jax --band 1 --size 1048576 "),
    ],
)
def test_the_command_names_what_distinguishes_the_case(fields: dict[str, object], said: str) -> None:
    assert said in bisect_command(GOOD, BAD, 1.05, a_series(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"case": "AdamW fused", "band": None},
        {"kernel": "host"},
        {"measure": "peak memory", "unit": "bytes"},
        {"framework": "jax", "band": 8},
        {"variant": "backend=reference"},
        {"workload": HOSTILE},
        {"framework": HOSTILE},
        {"dtype": HOSTILE},
        {"variant": HOSTILE},
    ],
)
def test_there_is_no_command_for_what_cannot_be_compared(fields: dict[str, object]) -> None:
    assert bisect_command(GOOD, BAD, 1.05, a_series(**fields)) == ""


def test_there_is_no_command_without_two_commits_or_without_a_loss() -> None:
    assert bisect_command("", BAD, 1.05) == bisect_command(GOOD, "", 1.05) == bisect_command(GOOD, GOOD, 1.05) == ""
    assert bisect_command(GOOD, BAD, 0.9) == ""
    assert bisect_command(GOOD, BAD, 7.0).count(" 50") == 2  # a comparison takes less than 100 percent


def test_a_commit_counts_where_it_is_one_and_the_tree_was_its() -> None:
    assert clean_commit(a_run(1)) == GOOD
    assert clean_commit(a_run(1, modified=None)) == GOOD
    assert clean_commit(a_run(1, modified=True)) == clean_commit(a_run(1, commit="")) == clean_commit(a_run(1, commit=HOSTILE)) == ""


@pytest.mark.parametrize(
    ("starts", "status", "told"), [(0, 0, 0), (0, 1, 1), (0, 3, 125), (0, 2, 255), (0, 70, 255), (0, 130, 255), (1, 1, 125), (1, 0, 125)]
)
def test_git_is_told_what_the_comparison_found(tmp_path: Path, starts: int, status: int, told: int) -> None:
    """The inner script run by a shell in which `sonew-perf` ends as asked: 1 is bad, 125 is not known, more than 127 stops the search."""
    fake = tmp_path / "sonew-perf"
    fake.write_text(f"#!/bin/sh\n[ $1 = --help ] && exit {starts}\nexit {status}\n")
    fake.chmod(0o755)
    script = shlex.split(bisect_command(GOOD, BAD, 1.05, a_series()))[-1]
    done = subprocess.run(["/bin/sh", "-c", script], env={"PATH": str(tmp_path)}, check=False, timeout=20)
    assert done.returncode == told
