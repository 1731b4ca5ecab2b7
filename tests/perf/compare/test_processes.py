"""Real processes of both sides, once; what they measure is not judged."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sonew_perf.compare.cases import Case
from sonew_perf.compare.processes import Pair, Process, Subject, launched
from sonew_perf.compare.rounds import Limits, take_rounds
from sonew_perf.compare.sides import Side, parse_side
from sonew_perf.errors import MeasurementError
from sonew_perf.process import ROOT
from sonew_perf.steps.workloads import one_tensor


def later() -> float:
    """A moment that no test reaches."""
    return time.monotonic() + 600


def test_both_sides_time_their_own_steps_and_a_planted_slowdown_shows() -> None:
    base = Subject(side=parse_side(".@off"), tree=ROOT)
    head = Subject(side=parse_side("."), tree=ROOT, slowdown=4.0)  # so large that no noise hides it
    small = Case(framework="torch", workload=one_tensor(500), band=1)
    wrong = Case(framework="torch", workload=one_tensor(500), band=-1)
    deadline = later()
    good, bad = take_rounds(
        [small, wrong],
        lambda framework: launched(base, head, framework=framework, device="cpu", deadline=deadline),
        Limits(deadline),
        launches=1,
        rounds=3,
    )
    assert good.reason == ""
    assert all(later / earlier > 2 for earlier, later in good.rounds[0])
    assert ["tuning=" in str(side["plans"]) or "analytic" in str(side["plans"]) for side in good.facts] == [True, True]
    assert "band" in bad.reason
    assert bad.rounds == []


def test_a_side_that_imports_another_copy_is_refused(tmp_path: Path) -> None:
    """An empty folder as the tree: the installed package would be measured in its place."""
    elsewhere = Subject(side=Side(spec="v1", commit="1" * 40), tree=tmp_path)
    with pytest.raises(MeasurementError, match="imported SONew from"):
        Pair(elsewhere, elsewhere, framework="torch", device="cpu", deadline=later())


def test_a_process_that_ends_says_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "sonew"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise SystemExit('this version is broken')")
    process = Process(Subject(side=Side(spec="v1", commit="1" * 40), tree=tmp_path), "torch", "cpu")
    try:
        with pytest.raises(MeasurementError, match=r"ended with status 1: this version is broken"):
            process.ask({"do": "say"}, 60)
    finally:
        process.close()
