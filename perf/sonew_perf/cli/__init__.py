"""`sonew-perf`: see the speed, and catch it falling."""

from __future__ import annotations

from typing import Final

import typer

from sonew_perf.cli import compare, gpu, steps, train
from sonew_perf.cli.options import EPILOG

COMMANDS: Final = (steps.run, compare.compare, steps.host, steps.jax, train.train, gpu.gpu)

app = typer.Typer(help="Measure SONew's step beside its peers, and what training with it gains.", epilog=EPILOG, no_args_is_help=True)
for command in COMMANDS:
    app.command(epilog=EPILOG)(command)
