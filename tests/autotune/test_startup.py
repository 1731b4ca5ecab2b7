"""What a command loads: the search and its library only where something is searched."""

from __future__ import annotations

import os
import subprocess
import sys

CODE = """
import sys
from sonew_autotune.cli import app
for arguments in (
    ["show", "--json"],
    ["explain", "--band", "1", "--size", "3000", "--device", "cpu"],
    ["compile", "--band", "1", "--kernel", "update"],
):
    try:
        app(arguments)
    except SystemExit as end:
        assert not end.code, (arguments, end.code)
    assert "sonew_autotune.commands.render" in sys.modules
    assert "optuna" not in sys.modules, f"{arguments[0]} loaded optuna"
"""


def test_only_a_run_loads_optuna() -> None:
    """One process for all: what one command loads stays, and the next one is not to blame."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "band" in done.stdout
