"""The commands that carry tuned configurations between machines: `export` and `import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from sonew_autotune.cli.filters import Bands, DevicePart, Kernel, Kind, Usable
from sonew_autotune.cli.options import EPILOG, Json, Store, finish
from sonew_autotune.settings import Exit

app: Final = typer.Typer()


@app.command(
    "export",
    epilog=EPILOG,
    help=(
        "Write the user's store, or a part of it, to a bundle: one JSON file with every entry's evidence, the versions that made it "
        "and a SHA-256 digest. It names hardware and versions, no user and no host.\n\n"
        "[bold]Examples[/bold]\n\n"
        "  sonew-autotune export winners.json\n\n"
        "  sonew-autotune export h100.json --device H100 --kind measured"
    ),
)
def export_(
    file: Annotated[Path, typer.Argument(help="The bundle to write; a file that does not exist yet.", show_default=False)],
    *,
    band: Bands = None,
    kernel: Kernel = None,
    device: DevicePart = None,
    kind: Kind = None,
    usable: Usable = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Export; the help text stands in the decorator."""

    def command() -> Exit:
        from sonew_autotune.commands import listing, sharing  # noqa: PLC0415  # loads torch

        wanted = listing.Filter(bands=band or (), kernel=kernel, device=device, kind=kind, usable=usable)
        return sharing.export_(file, wanted, overwrite=overwrite, as_json=as_json)

    finish(command, store=store)


@app.command(
    "import",
    epilog=EPILOG,
    help=(
        "Take the entries of a bundle, or what the workers on a shared storage decided, into the user's store: all of them, or nothing "
        "where any of them is not sound.\n\n"
        "What was measured on this machine stays, and so does what is as new; --replace puts the bundle's in their place. A measured "
        "entry never makes room for a static one. Each entry's evidence says from which bundle it came.\n\n"
        "[bold]Examples[/bold]\n\n"
        "  sonew-autotune import winners.json --dry-run\n\n"
        "  sonew-autotune import winners.json\n\n"
        "  sonew-autotune import --storage postgresql+psycopg://tuner@db.example.org/studies"
    ),
)
def import_(
    file: Annotated[Path | None, typer.Argument(help="The bundle, as sonew-autotune export wrote it.", show_default=False)] = None,
    *,
    storage: Annotated[str | None, typer.Option(help="Take the results of a storage that workers shared, instead of a bundle.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace stored entries whatever their age and origin.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen; write nothing.")] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Import; the help text stands in the decorator."""

    def command() -> Exit:
        from sonew_autotune.commands import sharing  # noqa: PLC0415  # loads torch

        return sharing.import_(file, storage=storage, replace_stored=replace, dry_run=dry_run, as_json=as_json)

    finish(command, store=store)
