"""Files written whole or not at all, and unusable ones moved out of the way."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sonew.errors import InvalidConfigError, SonewError

FIXES: Final[Mapping[int, str]] = {
    errno.ENOSPC: "Free space on that disk",
    errno.EDQUOT: "Free some of your disk quota",
    errno.EROFS: "Mount that disk writable",
}


class WriteError(SonewError, OSError):
    """A file could not be written; what was there before is there still."""


@contextmanager
def writing(subject: str, *, otherwise: str) -> Iterator[None]:
    """Around the writing of a file: what the system refuses becomes one clear error.

    Args:
        subject: what is written, for the message. otherwise: how to choose another place, "pass --store FILE".

    Raises:
        WriteError: in place of an OSError that is not already one of ours.
    """
    try:
        yield
    except SonewError:
        raise
    except OSError as error:
        fix = FIXES.get(error.errno or 0, "Make the place writable")
        msg = f"{subject} cannot be written ({error}). Nothing was lost. {fix}, or {otherwise}."
        raise WriteError(msg) from error


def _sync_folder(folder: Path) -> None:
    """Bring a new name in a folder to the disk; where the file system cannot, the file is in place all the same."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomically(path: Path, text: str) -> None:
    """Write beside the target and move into place: a reader sees the old file or the new one, never a part.

    A link stays a link. The file keeps its mode; a new one gets what the umask leaves, since a record is for reading and not
    a secret, which is what `tempfile.mkstemp` makes.

    Raises:
        OSError: it cannot be written; the old file is as it was.
    """
    real = path.resolve()
    temporary = real.with_name(f".{real.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as handle:
            if real.exists():
                os.fchmod(handle.fileno(), stat.S_IMODE(real.stat().st_mode))
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(real)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(real.parent)


def sweep(path: Path) -> None:
    """Remove what writers of this file left when they were killed. Only for whoever holds the lock that all its writers take."""
    names = [entry.name for entry in os.scandir(path.parent)]
    for name in names:
        if name.startswith(f".{path.name}.") and name.endswith(".tmp"):
            path.with_name(name).unlink(missing_ok=True)


def set_aside(path: Path, label: str) -> Path:
    """Move a file that cannot be used out of the way, under a name that says why and when."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    target = path.with_name(f"{path.name}.{label}-{stamp}")
    path.replace(target)
    return target


def prepare_folder(folder: Path, *, subject: str, fix: str) -> Path:
    """Make a folder and try it.

    Args:
        subject: what is to be written there, for the message. fix: how to choose another place.

    Raises:
        InvalidConfigError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        msg = f"{subject} cannot be written ({error}). {fix}"
        raise InvalidConfigError(msg) from error
    return folder
