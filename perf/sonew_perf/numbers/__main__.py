"""`python -m sonew_perf.numbers`: are the READMEs' performance numbers those of the committed records?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sonew.errors import SonewError
from sonew_autotune.commands.text import printable
from sonew_autotune.settings import Exit
from sonew_perf.numbers import pages

app = typer.Typer(add_completion=False)


@app.command()
def main(
    *,
    write: Annotated[bool, typer.Option("--write/--check", help="Write what is out of date anew, or list it and exit with 1.")] = False,
    root: Annotated[Path | None, typer.Option(help="Top of the checkout; by default the one that this package lies in.")] = None,
) -> None:
    """The performance numbers of the READMEs, from perf/baselines. Exit codes: 0 done, 1 out of date, 2 broken marker or record."""
    try:
        top = pages.checkout() if root is None else root
        if write:
            for page in pages.write(top):
                typer.echo(f"written: {page}")
            return
        found = pages.stale(top)
    except (SonewError, OSError) as error:
        typer.echo(f"error: {printable(str(error))}", err=True)
        raise typer.Exit(Exit.WRONG_USE) from error
    for place in found:
        typer.echo(f"{place.page}:{place.line}: {place.name} is out of date")
        for line in place.difference:
            typer.echo(f"  {printable(line)}")
    if found:
        typer.echo("Run `python -m sonew_perf.numbers --write`.")
        raise typer.Exit(Exit.CHECK_FAILED)


if __name__ == "__main__":
    app()
