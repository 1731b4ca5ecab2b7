"""The command `validate-model`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from sonew_autotune.cli.options import EPILOG, Json, Store, finish
from sonew_autotune.commands.interrupt import interrupted_once
from sonew_autotune.settings import Exit

app: Final = typer.Typer()


@app.command(
    name="validate-model",
    epilog=EPILOG,
    help=(
        "Compare the static model, which ranks candidates for a GPU that is not here, with times that were measured there.\n\n"
        "It reports rank correlations, and by how much the model's first choice is slower than the best, beside the default. "
        'A target without measured data is "not validated": exit code 3.\n\n'
        "[bold]Examples[/bold]\n\n"
        "  sonew-autotune validate-model\n\n"
        "  sonew-autotune validate-model --target cuda:90 --landscape trials.json"
    ),
)
def validate_model(
    *,
    target: Annotated[str | None, typer.Option(help="cuda:80, cuda:90, hip:gfx942 ...; all of them by default.")] = None,
    landscape: Annotated[list[Path] | None, typer.Option(help="Times written by `run --record FILE`; repeatable.")] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Validate; the help text stands in the decorator."""

    def command() -> Exit:
        from sonew_autotune.commands import validating  # noqa: PLC0415  # loads torch

        with interrupted_once():
            return validating.validate_model(target, landscape or (), as_json=as_json)

    finish(command, store=store)
