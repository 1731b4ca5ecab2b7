"""One trial at a time on a device, whoever tunes: two processes that timed side by side would time each other."""

from __future__ import annotations

import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final

from sonew.errors import InvalidConfigError, SonewError
from sonew_autotune.store.journal import LockedError, locked

POLL_S: Final = 0.05


class DeviceBusyError(SonewError, RuntimeError):
    """Another process times on the device, and the time to wait for it has ended."""


def lock_of(name: str, folder: Path | None = None) -> Path:
    """The lock that this user's tuning processes on this machine share for a device, wherever each of them keeps its studies.

    Args:
        name: of the device, `device.device_name`. folder: for the lock; None: one of this user's alone, beside the temporary files.

    Raises:
        InvalidConfigError: there is no such folder to be had.
    """
    place = folder or Path(tempfile.gettempdir()) / f"sonew-{os.getuid()}"
    fix = "Remove it, or set TMPDIR to a folder of your own."
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = place.lstat()
    except OSError as error:
        msg = f"the folder of device locks {place} cannot be made ({error}). {fix}"
        raise InvalidConfigError(msg) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        msg = f"the folder of device locks {place} is not yours alone to write: someone else could hold a device for ever. {fix}"
        raise InvalidConfigError(msg)
    return place / f"{re.sub(r'[^0-9A-Za-z.-]+', '_', name)}.lock"


def turns_on(lock: Path) -> Callable[[float], AbstractContextManager[None]]:
    """Turns on the device behind a lock: each waits for it until a `time.monotonic()` at the latest.

    Raises, in a turn:
        DeviceBusyError: it was not free until then.
    """

    @contextmanager
    def turn(end: float) -> Iterator[None]:
        with ExitStack() as held:
            while True:
                try:
                    held.enter_context(locked(lock, wait=False))
                    break
                except LockedError as error:
                    if time.monotonic() > end:
                        msg = f"another tuning process times on this device: {lock} is held. Wait until it ends."
                        raise DeviceBusyError(msg) from error
                time.sleep(POLL_S)
            yield

    return turn
