"""The commands on what is stored: `show` and `explain`."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from sonew_autotune.cli.options import EPILOG, Band, Device, Dtype, Json, Model, Size, State, Store, finish
from sonew_autotune.settings import Exit, Problems

app: Final = typer.Typer()


@app.command(
    epilog=EPILOG,
    help=(
        "List the stored configurations with their evidence, and whether each one is usable on this machine.\n\n"
        "[bold]Example[/bold]\n\n  sonew-autotune show --json"
    ),
)
def show(*, store: Store = None, as_json: Json = False) -> None:
    """Show; the help text stands in the decorator."""

    def command() -> Exit:
        from sonew_autotune.commands import stored  # noqa: PLC0415  # loads torch

        return stored.show(as_json=as_json)

    finish(command, store=store)


@app.command(
    epilog=EPILOG,
    help=(
        "Say which backend and which configuration a problem gets, and why: every backend's verdict, every stored entry with the "
        "fields that speak against it.\n\n"
        "[bold]Example[/bold]\n\n  sonew-autotune explain --band 4 --size 4194304 --device cpu"
    ),
)
def explain(
    *,
    band: Band = None,
    size: Size = None,
    model: Model = None,
    dtype: Dtype = None,
    state: State = None,
    device: Device = "auto",
    backend: Annotated[str, typer.Option(help="auto, triton, cpu or reference.")] = "auto",
    tuning: Annotated[str, typer.Option(help="on (user's store, then shipped), pinned (shipped only) or off.")] = "on",
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Explain; the help text stands in the decorator."""

    def command() -> Exit:
        from sonew_autotune.commands import stored  # noqa: PLC0415  # loads torch

        problems = Problems(bands=band or (), sizes=size or (), models=model or (), dtypes=dtype or (), states=state or (), device=device)
        return stored.explain(problems, backend=backend, tuning=tuning, as_json=as_json)

    finish(command, store=store)
