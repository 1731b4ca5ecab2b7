"""Candidates planted to fail, each in its own way, in a real run on this CPU: every one is a typed failure, and the run ends."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sonew import tuned
from sonew_autotune.api import SilentReport
from sonew_autotune.problems import Case
from sonew_autotune.search import tuner
from sonew_autotune.search.targets import Target, find_target
from sonew_autotune.search.tuner import Machine, Run
from sonew_autotune.settings import EVERY_POINT, Settings
from sonew_autotune.space import Space
from sonew_autotune.trials.trial import Subject
from sonew_autotune.trials.worker import Worker
from tests.autotune.trials.planted import KINDS, make_planted

DEFAULT = {"segment": 16384, "block": 256, "threads": 0}
SPACE = Space("cpu", 1, (("segment", (4096, 16384)), ("block", (256, 512)), ("threads", (0, 1))))
CASE = Case(name="3000", shapes=((3000,),), device="cpu", band=1)


def _target(case: Case) -> Target:
    found = find_target(case)
    return Target(subject=Subject(case=case, backend="cpu", kernel="cpu", default=DEFAULT), key=found.key, space=SPACE)


def test_each_planted_failure_is_typed_and_the_run_finishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuner, "final_seconds", lambda _default_ms: 0.5)  # the verdict on what did not fail is not the point
    settings = Settings(trials=8, rounds=2, budget_s=120, trial_s=6.0, sampler=EVERY_POINT)
    worker, store = Worker(make_planted), tmp_path / "tuned.json"
    try:
        run = Run(
            settings,
            store_path=store,
            studies=tmp_path / "studies",
            machine=Machine(answer=worker.answer, target=_target),
            report=SilentReport(),
            started=time.monotonic(),
        )
        (result,) = run.tune([CASE])
    finally:
        worker.close()
    kinds = {record.failure.kind: record.config for record in result.failures if record.failure is not None}
    assert kinds == KINDS
    assert result.entry is not None
    assert (result.entry.evidence["trials"], result.entry.evidence["failed_trials"]) == (8, 4)
    assert result.entry.config.as_dict() not in KINDS.values()
    (stored,) = tuned.read_store("user store", store).entries
    assert stored == result.entry
