"""`sonew-perf dashboard`: the pages, served on this machine or in one file."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sonew_perf.cli.options import exit_codes
from sonew_perf.records.runs import BASELINES, store_folder


def dashboard(
    *,
    export: Annotated[Path | None, typer.Option(help="Write every page into this one HTML file, and serve nothing.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the server; 0: one that is free.")] = 8765,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the pages in the browser.")] = False,
    store: Annotated[Path | None, typer.Option(help="Folder of the runs; default: SONEW_PERF_STORE, or the user's data folder.")] = None,
) -> None:
    """Show what was measured: verdicts, histories, regressions, roofline. Only this machine can reach the server; Ctrl-C ends it.

    The exported file needs no network and no server; it opens by a double click.
    """
    with exit_codes():
        folder = store_folder() if store is None else store
        baselines = BASELINES if BASELINES.is_dir() else None
        if export is None:
            _serve(folder, baselines, port, open_browser=open_browser)
            return
        from sonew_perf.dashboard.export import export_file  # noqa: PLC0415  # what draws is loaded by who draws

        with Console(stderr=True).status(f"reading {folder}"):
            kept = export_file(export, folder, baselines)
        typer.echo(f"{export} ({export.stat().st_size / 1e6:.1f} MB). {kept.rule}")
        if open_browser:
            webbrowser.open(export.resolve().as_uri())


def _serve(folder: Path, baselines: Path | None, port: int, *, open_browser: bool) -> None:
    from sonew_perf.dashboard.server import make_app, serve  # noqa: PLC0415  # as above

    def ready(address: str) -> None:
        typer.echo(f"{address} shows {folder}. Ctrl-C ends it.")
        if open_browser:
            webbrowser.open(address)

    with Console(stderr=True).status(f"reading {folder}"):  # the first time after many runs takes seconds
        app = make_app(folder, baselines)
    serve(app, port, ready)
