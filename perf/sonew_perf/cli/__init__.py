"""`sonew-perf`: see the speed, and catch it falling."""

from __future__ import annotations

from typing import Final

import typer

from sonew_perf.cli import compare, dashboard, gpu, history, records, steps, train
from sonew_perf.cli.options import EPILOG

PANELS: Final = {
    "Measure": (steps.run, compare.compare, steps.host, steps.jax, train.train, gpu.gpu),
    "Look": (dashboard.dashboard, history.history, history.regressions, records.runs),
    "Keep": (records.export, records.pin, records.unpin, records.gc),
}

app = typer.Typer(
    help="See the speed of SONew's step beside its peers, what training with it gains, and catch either falling.",
    epilog=EPILOG,
    no_args_is_help=True,
)
for panel, commands in PANELS.items():
    for command in commands:
        app.command(epilog=EPILOG, rich_help_panel=panel)(command)
