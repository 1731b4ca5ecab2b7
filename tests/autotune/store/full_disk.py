"""A disk that is full, for the tests of whatever writes: each way in which the system says so."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

FAILING: Final = ("make", "write", "sync", "replace", "try")


def _no_space(*_arguments: Any, **_named: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class _FullFile(io.TextIOWrapper):
    """A file that takes the first half of what is written."""

    def write(self, text: str) -> int:
        super().write(text[: len(text) // 2])
        super().flush()
        _no_space()


def fail(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """Let the disk be full when a new file is made, written, synchronised or moved into place, or when the folder is tried."""
    real_open = Path.open

    def open_new(path: Path, mode: str = "r", **named: Any) -> Any:
        if mode != "x":
            return real_open(path, mode, **named)
        if broken == "make":
            _no_space()
        return _FullFile(real_open(path, "xb"), **named)

    if broken in ("make", "write"):
        monkeypatch.setattr(Path, "open", open_new)
    if broken == "sync":
        monkeypatch.setattr(os, "fsync", _no_space)
    if broken == "replace":
        monkeypatch.setattr(os, "replace", _no_space)
    if broken == "try":
        monkeypatch.setattr(tempfile, "TemporaryFile", _no_space)
