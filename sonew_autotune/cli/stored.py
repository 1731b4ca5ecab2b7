"""The commands on what is stored: `show`, `explain` and `check`."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from sonew_autotune.cli.filters import Bands, DevicePart, Kernel, Kind, Usable
from sonew_autotune.cli.options import EPILOG, Band, Device, Dtype, Json, Model, Size, State, Store, finish, problems_of
from sonew_autotune.settings import Exit

app: Final = typer.Typer()


@app.command(
    epilog=EPILOG,
    help=(
        "List the stored configurations with their evidence, and whether each one is usable on this machine.\n\n"
        "[bold]Examples[/bold]\n\n"
        "  sonew-autotune show --usable --sort gain\n\n"
        "  sonew-autotune show --device H100 --kind measured --json\n\n"
        "  sonew-autotune show --details 3f2a9c1b      (a name from the first column)"
    ),
)
def show(
    *,
    band: Bands = None,
    kernel: Kernel = None,
    device: DevicePart = None,
    kind: Kind = None,
    usable: Usable = False,
    sort: Annotated[str | None, typer.Option(help="band, size, gain, date or device. Default: as stored.")] = None,
    details: Annotated[str | None, typer.Option(help="Everything about the entry of this name, or of its beginning.")] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Show; the help text stands in the decorator."""

    def command() -> Exit:
        from sonew_autotune.commands import listing, stored  # noqa: PLC0415  # loads torch

        wanted = listing.Filter(bands=band or (), kernel=kernel, device=device, kind=kind, usable=usable)
        return stored.show(wanted, sort=sort, details=details, as_json=as_json)

    finish(command, store=store)


@app.command(
    epilog=EPILOG,
    help=(
        "Look through the user's store and the shipped ones: is every entry readable, possible, complete in its evidence and the only "
        "one of its key; is it used on this machine, and if not, why.\n\n"
        "An entry for another machine or of an earlier version is a note, not a fault. Exit code 1: an entry is wrong; "
        "2: a store is unreadable or of another version.\n\n"
        "[bold]Example[/bold]\n\n  sonew-autotune check --json"
    ),
)
def check(*, store: Store = None, as_json: Json = False) -> None:
    """Check; the help text stands in the decorator."""

    def command() -> Exit:
        from sonew_autotune.commands import stored  # noqa: PLC0415  # loads torch

        return stored.check(as_json=as_json)

    finish(command, store=store)


@app.command(
    epilog=EPILOG,
    help=(
        "Say which backend and which configuration a problem gets, and why: every backend's verdict, every stored entry with the "
        "fields that speak against it.\n\n"
        "[bold]Examples[/bold]\n\n"
        "  sonew-autotune explain --band 4 --size 4194304 --device cpu\n\n"
        "  sonew-autotune explain --band 4 --size 4194304 --tuning pinned --json"
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

        problems = problems_of(band, size, model, dtype, state, device)
        return stored.explain(problems, backend=backend, tuning=tuning, as_json=as_json)

    finish(command, store=store)
