"""The interpreter that a side runs with: this one, one that the user names, or one made for it by its own Makefile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from sonew.errors import InvalidConfigError
from sonew_perf.compare.sides import Side
from sonew_perf.errors import MeasurementError

SHARED: Final = "shared"
OWN: Final = "own"
ENVIRONMENTS: Final = (SHARED, OWN)
MAKE_S: Final = 1800.0
DEPENDENCIES: Final = ("pyproject.toml", "constraints-py311.txt", "constraints-py312-gpu.txt")


def interpreter(side: Side, tree: Path, *, environment: str = SHARED, python: Path | None = None) -> str:
    """The interpreter for a side's processes.

    Args:
        side: whose. tree: its files. environment: "shared" for this process's own, "own" for one that `make env` makes in the tree.
        python: the user's choice, before either.

    Raises:
        InvalidConfigError: no such interpreter. MeasurementError: the environment cannot be made.
    """
    if python is not None:
        if not (python.is_file() and os.access(python, os.X_OK)):
            msg = f"python={str(python)!r} for {side.title} is no program. Pass the path of a Python interpreter that has the packages."
            raise InvalidConfigError(msg)
        return str(python.absolute())
    if environment == SHARED or side.in_place:
        return sys.executable
    try:
        made = subprocess.run(["make", "env"], cwd=tree, capture_output=True, text=True, check=False, timeout=MAKE_S)  # noqa: S607  # make from PATH
        last = (made.stderr.strip() or made.stdout.strip()).splitlines()[-1:] if made.returncode else []
        failed = made.returncode != 0
    except (OSError, subprocess.TimeoutExpired) as error:
        last, failed = [str(error)], True
    if failed:
        msg = f"{side.title}: make env failed{''.join(f' ({line})' for line in last)}. Compare in one environment: --environment shared."
        raise MeasurementError(msg)
    return str(tree / ".venv" / "bin" / "python")


def differing_dependencies(one: Path, other: Path) -> list[str]:
    """Files in which the two trees' dependencies are written down and differ: then one environment cannot be right for both."""

    def content(tree: Path, name: str) -> bytes | None:
        path = tree / name
        return path.read_bytes() if path.is_file() else None

    return [name for name in DEPENDENCIES if content(one, name) != content(other, name)]
