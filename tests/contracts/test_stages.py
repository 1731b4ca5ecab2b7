"""What `python -m tests` promises: two stages at once where both may be, whole outputs, and the failing stage's name."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from subprocess import Popen

import pytest

from tests.__main__ import SUITES, TIMED, Running, Stage, fits, run, suites


def stage(name: str, statement: str, *, beside: bool = True, gpu: bool = False) -> Stage:
    """A stage that runs one statement."""
    return Stage(name=name, module="timeit", arguments=("-n1", "-r1", statement), beside=beside, gpu=gpu)


@pytest.mark.parametrize(
    ("wanted", "running", "expected"),
    [
        ("plain", [], True),
        ("alone", [], True),
        ("plain", ["plain"], True),
        ("plain", ["gpu"], True),
        ("gpu", ["gpu"], False),
        ("plain", ["alone"], False),
        ("alone", ["plain"], False),
        ("plain", ["plain", "gpu"], False),
    ],
)
def test_what_may_run_beside_what(wanted: str, running: list[str], expected: bool) -> None:
    made = {name: stage(name, "pass", beside=name != "alone", gpu=name == "gpu") for name in ("plain", "alone", "gpu")}
    with Popen([sys.executable, "-c", ""]) as process:
        assert fits(made[wanted], [Running(made[name], process, 0.0, None) for name in running]) is expected


def test_only_what_times_this_machine_runs_alone_and_gpu_stages_are_marked() -> None:
    made = suites(full=False)
    assert [one.name for one in made] == [name for name, _, _ in SUITES]
    assert [one.name for one in made if not one.beside] == [TIMED]
    assert {one.name for one in made if one.gpu} == {"jax, for a GPU", "kernels, on a GPU"}
    assert not any(one.beside for one in suites(full=True))


def test_two_stages_that_wait_for_each_other_run_at_once_and_are_shown_one_after_the_other(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def meets(own: str, other: str) -> str:
        wait = f"while not os.path.exists({str(tmp_path / other)!r}): time.sleep(0.01)"
        return f"import os, time\nprint({own!r}, 1, flush=True)\nopen({str(tmp_path / own)!r}, 'w').close()\n{wait}\nprint({own!r}, 2)"

    assert run([stage("one", meets("a", "b")), stage("two", meets("b", "a")), stage("last", "print('c')", beside=False)]) == 0
    printed = capfdbinary.readouterr().out.decode()
    assert re.findall(r"^[abc] ?\d?$", printed, re.MULTILINE) in (["a 1", "a 2", "b 1", "b 2", "c"], ["b 1", "b 2", "a 1", "a 2", "c"])
    assert re.search(r"== passed: (one|two) \d+ s, (one|two) \d+ s, last \d+ s\n", printed)


def test_the_first_failure_stops_the_other_stage_and_is_named(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    start = time.monotonic()
    stages = [stage("slow", "import time; time.sleep(60)"), stage("bad", "print('why'); import os; os._exit(3)"), stage("never", "pass")]
    assert run(stages) == 3
    assert time.monotonic() - start < 30
    printed = capfdbinary.readouterr().out.decode()
    assert re.search(r"== bad: .*timeit.*\nwhy\n", printed)
    assert re.search(r"== failed in bad: bad \d+ s, slow stopped\n", printed)
    assert "never" not in printed
