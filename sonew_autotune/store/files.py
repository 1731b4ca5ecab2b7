"""Files written whole or not at all, and unusable ones moved out of the way."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from sonew.errors import InvalidConfigError


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
