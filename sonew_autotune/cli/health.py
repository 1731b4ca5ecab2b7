"""The command `doctor`."""

from __future__ import annotations

from typing import Final

import typer

from sonew_autotune.cli.options import EPILOG, Json, StateDir, Store, finish
from sonew_autotune.settings import Exit

app: Final = typer.Typer()


@app.command(
    epilog=EPILOG,
    help=(
        "Look at this machine and say what to fix: Python and packages, compiler and CPU backend, GPU, driver and permissions, clocks, "
        "load, memory, folders, stores, and which targets were only ever compiled.\n\n"
        "Each line is ok, a note or a problem with its fix. Exit code 1: there is a problem.\n\n"
        "[bold]Example[/bold]\n\n  sonew-autotune doctor --json"
    ),
)
def doctor(*, store: Store = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Doctor; the help text stands in the decorator."""

    def command() -> Exit:
        from sonew_autotune.commands import health  # noqa: PLC0415  # it loads what it judges

        return health.doctor(as_json=as_json)

    finish(command, store=store, state_dir=state_dir)
