from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sonew_perf.records.index import Index
from sonew_perf.records.listing import revision_of
from sonew_perf.records.runs import Pin, write_pins, write_run
from tests.perf.records.made import made_run, make_store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two runs of two series."""
    make_store(tmp_path / "store", series=2, runs=2)
    return tmp_path / "store"


def test_the_revision_changes_with_everything_that_is_shown_and_only_then(store: Path) -> None:
    seen = [revision_of(store, None)]
    assert Index.open(store, None).revision == seen[0]
    (store / "compares").mkdir()
    assert revision_of(store, None) == seen[0]
    changes: list[Callable[[], object]] = [
        lambda: write_run(store, made_run(9), []),
        lambda: write_pins(store, {made_run(1).id: Pin(made_run(1).id)}),
        lambda: (store / "tickets.json").write_text("{}"),
        lambda: (store / "compares" / "one.json").write_text("{}"),
        (store / "runs" / f"{made_run(0).id}.json").unlink,
    ]
    for change in changes:
        change()
        seen.append(revision_of(store, None))
    assert len(set(seen)) == len(seen)
    assert Index.open(store, None).revision == seen[-1]
