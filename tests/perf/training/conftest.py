"""What these tests train: a small task beside the real ones."""

from __future__ import annotations

import pytest

from sonew_perf.training.tasks.table import TASKS
from tests.perf.training.made import TASK


@pytest.fixture
def _small_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task "small"."""
    monkeypatch.setitem(TASKS, "small", TASK)
