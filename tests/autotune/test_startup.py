"""What a command loads: the search and its library only where something is searched."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "--json"),
        ("explain", "--band", "1", "--size", "3000", "--device", "cpu"),
        ("compile", "--band", "1", "--kernel", "update"),
    ],
)
def test_only_a_run_loads_optuna(arguments: tuple[str, ...]) -> None:
    code = (
        "import sys\n"
        "from sonew_autotune.cli import app\n"
        "try:\n    app(sys.argv[1:])\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'sonew_autotune.commands.render' in sys.modules\n"
        "assert 'optuna' not in sys.modules, 'optuna was loaded'"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
