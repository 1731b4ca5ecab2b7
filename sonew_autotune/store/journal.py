"""Files that outlive a killed process: locks the system drops with their holder, and journals whose torn last line is cut off."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from sonew.errors import SonewError

BLOCK: Final = 65536


class LockedError(SonewError, RuntimeError):
    """Another process works on the same file."""


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on a file beside the one it protects.

    Raises:
        LockedError: another process holds it and `wait` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        _take(handle, path, wait=wait)
        yield


def _take(handle: IO[str], path: Path, *, wait: bool) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        msg = f"another process holds {path}: wait until it ends, or stop it"
        raise LockedError(msg) from error


def cut_torn_line(path: Path) -> bool:
    """Drop an unfinished last line, left by a process that was killed while it wrote; True if there was one."""
    if not path.exists():
        return False
    with path.open("r+b") as handle:
        size = end = handle.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - BLOCK)
            handle.seek(start)
            last = handle.read(end - start).rfind(b"\n")
            if last >= 0:
                end = start + last + 1
                break
            end = start
        if end == size:
            return False
        handle.truncate(end)
    return True
