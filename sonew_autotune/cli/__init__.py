"""The command line `sonew-autotune`: options and help, a module per group of commands; the work is in `sonew_autotune.commands`."""

from __future__ import annotations

from typing import Final

import typer

from sonew_autotune.cli import compiling, health, ranking, reporting, sharing, stored, tuning, warming
from sonew_autotune.cli.options import EPILOG

app: Final = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Tune the SONew step for this machine, or compile it for another; keep the winners where `sonew` finds them.",
    epilog=EPILOG,
)
for group in (tuning, stored, reporting, sharing, compiling, warming, ranking, health):
    app.add_typer(group.app)
