"""One test's failure is that test's alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.distributed.workers import Workers


def die() -> None:
    """End this rank's process."""
    os._exit(1)


def live() -> bool:
    """True."""
    return True


def test_after_a_rank_has_died_the_next_run_has_new_ones(tmp_path: Path) -> None:
    pool = Workers(1, tmp_path)
    try:
        with pytest.raises(AssertionError, match=r"rank 0 of 1 ended in test_workers\.die"):
            pool.run("test_workers.die", 1)
        assert pool.run("test_workers.live", 1) == [True]
    finally:
        pool.close()
