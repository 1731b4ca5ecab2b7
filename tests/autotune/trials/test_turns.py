"""Turns on a device: processes exclude each other, wait in time, and agree on the lock wherever their studies lie."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sonew.errors import InvalidConfigError
from sonew_autotune.api import _measuring
from sonew_autotune.device import device_name
from sonew_autotune.trials.turns import DeviceBusyError, lock_of, turns_on

HOLDER = """
import sys, time
from pathlib import Path
from sonew_autotune.trials.turns import turns_on
with turns_on(Path(sys.argv[1]))(time.monotonic() + 30):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def _held_by_another(lock: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()


def test_two_processes_exclude_each_other_and_waiting_ends_in_time(tmp_path: Path) -> None:
    lock = lock_of("here-cpu", tmp_path / "locks")
    turn, start = turns_on(lock), time.monotonic()
    with _held_by_another(lock) as holder:
        start = time.monotonic()
        with pytest.raises(DeviceBusyError, match=r"another tuning process.*here-cpu\.lock is held"), turn(start + 0.3):
            pytest.fail("timed beside another")
        assert 0.3 <= time.monotonic() - start < 5
        holder.kill()
        with turn(time.monotonic() + 20):
            assert holder.wait() == -9
    with turn(time.monotonic()):
        pass


def test_the_lock_is_the_devices_and_this_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lock = lock_of("here-GPU-5ca1/../ab")
    assert lock == tmp_path / f"sonew-{os.getuid()}" / "here-GPU-5ca1_.._ab.lock"
    assert stat.S_IMODE(lock.parent.stat().st_mode) == 0o700
    assert lock_of("here-GPU-5ca1/../ab") == lock


def test_a_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    open_to_all, link, taken = tmp_path / "open", tmp_path / "link", tmp_path / "file"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    (tmp_path / "own").mkdir(mode=0o700)
    link.symlink_to(tmp_path / "own")
    taken.touch()
    for folder, words in ((open_to_all, "not yours alone"), (link, "not yours alone"), (taken, "cannot be made")):
        with pytest.raises(InvalidConfigError, match=f"{folder.name} .*{words}.*set TMPDIR"):
            lock_of("cpu", folder)


def test_a_tuning_run_takes_the_lock_of_its_device(tmp_path: Path) -> None:
    other = turns_on(lock_of(device_name("cpu"), tmp_path / "locks"))
    with _measuring("cpu", 1.0, tmp_path / "locks") as machine:
        with machine.turn(time.monotonic()), pytest.raises(DeviceBusyError), other(time.monotonic()):
            pytest.fail("timed beside another")
        with other(time.monotonic()):
            pass
