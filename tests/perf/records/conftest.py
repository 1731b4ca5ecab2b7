"""A small store, and a copy of it for tests that change it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.perf.records.made import RUNS, SERIES, make_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that nobody changes."""
    folder = tmp_path_factory.mktemp("store")
    make_store(folder, series=SERIES, runs=RUNS)
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(made / "runs", tmp_path / "store" / "runs")).parent
