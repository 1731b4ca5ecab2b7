"""Locks that cannot outlive their holder, and torn lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from sonew_autotune.store.journal import LockedError, cut_torn_line, locked


def test_a_held_lock_is_refused_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.lock"
    with locked(path), pytest.raises(LockedError, match=r"a\.lock.*wait until it ends"), locked(path, wait=False):
        pass
    with locked(path, wait=False):
        assert path.exists()


@pytest.mark.parametrize(
    ("before", "after", "torn"),
    [(b"", b"", False), (b"a\nb\n", b"a\nb\n", False), (b"a\nb\n{half", b"a\nb\n", True), (b"{half", b"", True)],
)
def test_only_an_unfinished_last_line_is_cut(tmp_path: Path, before: bytes, after: bytes, *, torn: bool) -> None:
    path = tmp_path / "journal"
    path.write_bytes(before)
    assert cut_torn_line(path) is torn
    assert path.read_bytes() == after
    assert cut_torn_line(tmp_path / "absent") is False
