from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from sonew_autotune.store.journal import LockedError, locked
from sonew_autotune.trials.turns import DeviceBusyError
from sonew_perf.cli import app, suite
from sonew_perf.records.files import Entry


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["run", *arguments])


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PermissionError(13, "Permission denied", "somewhere"), 2, "Permission denied: 'somewhere'. Make the place readable and writable"),
        (DeviceBusyError("another process times"), 3, "error: another process times"),
        (ZeroDivisionError("a fault of ours"), 70, "ZeroDivisionError: a fault of ours"),
        (typer.Exit(1), 1, ""),
        (typer.BadParameter("not so"), 2, "not so"),
    ],
)
def test_exit_code_1_is_a_failed_checks_alone(error: Exception, code: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_arguments: object, **_keywords: object) -> None:
        raise error

    monkeypatch.setattr(suite, "run_suite", fails)
    result = _run()
    assert (result.exit_code, said in " ".join(result.stderr.split())) == (code, True)
    assert ("Traceback" in result.stderr) == (code == 70)


def test_one_group_is_timed_in_its_turn_on_the_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lock = tmp_path / "device.lock"

    def held(*_arguments: object, **_keywords: object) -> list[Entry]:
        with pytest.raises(LockedError), locked(lock, wait=False):
            pass
        return []

    monkeypatch.setattr(suite, "lock_of", lambda _name: lock)
    monkeypatch.setattr(suite, "measure_one", held)
    monkeypatch.setattr(suite, "LEAST_LIMIT_S", 0.0)
    assert _run("--size", "500", "--device", "cpu").exit_code == 0
    with locked(lock, wait=False):
        busy = _run("--size", "500", "--device", "cpu")
    assert (busy.exit_code, "another tuning process times on this device" in busy.stderr) == (3, True)
