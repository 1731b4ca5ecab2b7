"""A suite of two small groups whose processes are played, and a store of the test's own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from sonew_autotune.trials.outcome import Failure
from sonew_perf.cli import suite
from sonew_perf.suite.groups import Group
from sonew_perf.suite.run import run_groups
from sonew_perf.suite.torch_process import Timed
from tests.perf.suite.made import GROUPS, Play


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Two small groups whose processes are replaced by a function; no GPU is seen."""

    def install(answer: Callable[[Group], Timed | Failure]) -> None:
        faked = functools.partial(run_groups, runner=lambda group, _rounds, _seconds, _end: answer(group), free=lambda _: None)
        monkeypatch.setattr(suite, "run_groups", faked)
        monkeypatch.setattr(suite, "all_groups", lambda: GROUPS)
        monkeypatch.setattr(suite, "gpus_seen", list)

    return install


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's store of this test."""
    monkeypatch.setenv("SONEW_PERF_STORE", str(tmp_path / "perf"))
    return tmp_path / "perf"
