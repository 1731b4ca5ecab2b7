"""Whole files: the mode they get, and what a failure leaves."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from sonew_autotune.store.files import write_atomically


@pytest.fixture
def _umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("_umask")
def test_a_new_file_gets_what_the_umask_leaves_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_atomically(path, "one")
    assert (path.read_text(), _mode(path)) == ("one", 0o640)
    path.chmod(0o664)
    write_atomically(path, "two")
    assert (path.read_text(), _mode(path)) == ("two", 0o664)
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    link, real = tmp_path / "link", tmp_path / "real"
    link.symlink_to(real)
    write_atomically(link, "text")
    assert link.is_symlink()
    assert real.read_text() == "text"


def test_a_failure_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "half \udc80")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
