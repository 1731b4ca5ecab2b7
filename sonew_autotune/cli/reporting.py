"""The command `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from sonew_autotune.cli.options import EPILOG, Json, StateDir, Store, finish
from sonew_autotune.settings import Exit

app: Final = typer.Typer()


@app.command(
    epilog=EPILOG,
    help=(
        "Write studies as HTML pages: one per study with its history, what each parameter did, every failure and why the winner won, "
        "and a list of them (index.html). A page is one file, opens offline and loads nothing.\n\n"
        "A search that is under way is not disturbed; its page shows what is known so far.\n\n"
        "[bold]Examples[/bold]\n\n"
        "  sonew-autotune report --open\n\n"
        "  sonew-autotune report --study band4 --output reports/band4\n\n"
        "  sonew-autotune report --storage postgresql+psycopg://tuner@db.example.org/studies --json"
    ),
)
def report(
    *,
    study: Annotated[str, typer.Option(help="Only studies whose name contains this.")] = "",
    output: Annotated[Path, typer.Option(help="Folder of the pages; made where it is missing.")] = Path("tuning-report"),
    storage: Annotated[
        str | None, typer.Option(help="A journal file or database URL that workers share, instead of the state folder.")
    ] = None,
    opened: Annotated[bool, typer.Option("--open", help="Show the result in the browser.")] = False,
    store: Store = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Report; the help text stands in the decorator."""

    def command() -> Exit:
        from sonew_autotune.commands import reporting  # noqa: PLC0415  # loads torch

        wanted = reporting.Wanted(study=study, output=output, storage=storage, opened=opened)
        return reporting.report(wanted, as_json=as_json)

    finish(command, store=store, state_dir=state_dir)
