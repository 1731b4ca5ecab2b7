"""Mutants of the kernels: each small falsification must be caught by a comparison of the battery, which the kernels pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernels.interpreter.battery import CHECKS, USERS
from tests.kernels.interpreter.faults import FAULTS
from tests.kernels.interpreter.mutants import load_kernels


@pytest.mark.parametrize("check", CHECKS)
def test_the_unchanged_copy_passes(check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_kernels(tmp_path, monkeypatch, None, USERS)
    CHECKS[check]()


@pytest.mark.parametrize("name", FAULTS)
def test_the_mutant_is_caught(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the check that is named with it."""
    check, fault = FAULTS[name]
    load_kernels(tmp_path, monkeypatch, fault, USERS)
    with pytest.raises(AssertionError):
        CHECKS[check]()


def test_every_check_catches_something() -> None:
    """A check that no fault needs would say nothing."""
    assert {check for check, _ in FAULTS.values()} == set(CHECKS)
