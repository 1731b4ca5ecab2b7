"""`sonew-perf history` and `regressions`: where levels changed, and what became slower."""

from __future__ import annotations

import os
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer

from sonew_autotune.commands.text import printable
from sonew_autotune.settings import Exit
from sonew_perf.cli.options import Json, Output, Store, among, exit_codes, print_lines
from sonew_perf.errors import RecordError
from sonew_perf.history import report
from sonew_perf.history.regressions import History, Regression, histories, newest_first, regressions_of
from sonew_perf.history.tickets import STATES, read_tickets, set_ticket
from sonew_perf.records import files
from sonew_perf.records.index import Index
from sonew_perf.records.model import Run, Series
from sonew_perf.records.runs import store_folder

Opened = tuple[list[History], dict[str, Run]]


def _open(folder: Path) -> Opened:
    """Every series of the store with its history, and the runs by id."""
    index = Index.open(folder)
    try:
        return histories(index), {run.id: run for run in index.runs()}
    finally:
        index.close()


def _matches(series: Series, wanted: str) -> bool:
    """Whether the text is the series' id, a pattern of its title or a part of it."""
    return wanted == series.id or fnmatchcase(series.title, wanted) or wanted.casefold() in series.title.casefold()


def history(
    wanted: Annotated[str, typer.Argument(metavar="[SERIES]", help="Id, or a part or pattern of the title.")] = "",
    *,
    kernel: Annotated[list[str] | None, typer.Option(help="Only this: step, direction, host, ...; repeatable.")] = None,
    case: Annotated[list[str] | None, typer.Option(help="Only cases that match, such as 'SONew*'; repeatable.")] = None,
    band: Annotated[list[int] | None, typer.Option(min=0, help="Only these bands; repeatable.")] = None,
    framework: Annotated[list[str] | None, typer.Option(help="torch or jax; repeatable.")] = None,
    changed: Annotated[bool, typer.Option("--changed", help="Only series whose level changed.")] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Show how each series went on: its levels, where they changed, between which runs, and the command that finds the commit.

    A series is judged by its own numbers or by its ratio to a peer of the same run, whichever is quieter: what slows down the whole
    machine is in both and cancels in the ratio.
    """
    with exit_codes():
        found, runs = _open(store or store_folder())
        chosen = [
            one
            for one in found
            if _matches(one.series, wanted)
            and (not kernel or one.series.kernel in kernel)
            and (not case or any(fnmatchcase(one.series.case, pattern) for pattern in case))
            and (not band or one.series.band in band)
            and (not framework or one.series.framework in framework)
        ]
        if found and not chosen:
            some = ", ".join(sorted({one.series.title for one in found})[:3])
            msg = f"no series is like this; there are {len(found)}, for example {printable(some)}. Leave out a filter."
            raise RecordError(msg)
        shown = [one for one in chosen if one.analysis.changes or not changed]
        if as_json:
            typer.echo(files.document([report.history_entry(one) for one in shown]), nl=False)
        else:
            machines = {run.machine.id: run.machine.name for run in runs.values()}
            console = Output()
            for one in shown:
                print_lines(console, report.history_lines(one, runs, machines.get(one.series.machine, one.series.machine)))
    _finish(chosen)


def _finish(found: list[History]) -> None:
    """Exit code 3 where nothing could be judged."""
    if not any(one.analysis.judged for one in found):
        typer.echo("nothing can be judged: no series has enough results. `sonew-perf run` adds them.", err=True)
        raise typer.Exit(Exit.NOT_JUDGED)


def regressions(
    *,
    state: Annotated[list[str] | None, typer.Option(help=f"Only these: {', '.join(STATES)}; repeatable.", callback=among(STATES))] = None,
    change: Annotated[
        tuple[str, str] | None, typer.Option("--set", metavar="STATE ID", help="Put a regression into a state, with --note and --author.")
    ] = None,
    note: Annotated[str, typer.Option(help="Why, for --set.")] = "",
    author: Annotated[str | None, typer.Option(help="Who says so, for --set. Default: the user's name.")] = None,
    fail: Annotated[bool, typer.Option("--fail", help="Exit with 1 if a regression is open and has not recovered.")] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """List what became slower and what was said about it. "accepted": the new level is meant."""
    with exit_codes():
        folder = store or store_folder()
        if change is None and (note or author is not None):
            msg = "--note and --author say something about a regression: pass --set STATE ID as well."
            raise RecordError(msg)
        found, runs = _open(folder)
        listed = _listed(found, runs, folder)
        if change is not None:
            _set(folder, listed, *change, note=note, author=os.environ.get("USER", "") if author is None else author)
            listed = _listed(found, runs, folder)
        shown = [one for one in listed if not state or one.state in state]
        if as_json:
            typer.echo(files.document([asdict(one) for one in shown]), nl=False)
        else:
            console = Output()
            console.print(report.regressions_table(shown))
            print_lines(console, [line for one in shown for line in report.regression_lines(one)])
    if fail and any(one.unsettled for one in listed):
        raise typer.Exit(Exit.CHECK_FAILED)
    if change is None:
        _finish(found)


def _listed(found: list[History], runs: dict[str, Run], folder: Path) -> list[Regression]:
    tickets = read_tickets(folder)
    return newest_first([one for history in found for one in regressions_of(history, runs, tickets)])


def _set(folder: Path, listed: list[Regression], state: str, identity: str, *, note: str, author: str) -> None:
    """Write what is said about one of the regressions.

    Raises:
        RecordError: there is no such regression or no such state.
    """
    known = [one.id for one in listed]
    if identity not in known:
        some = ", ".join(known[:3]) or "there is none"
        msg = f"{printable(identity)!r} is no regression of this store ({some}). `sonew-perf regressions` lists them."
        raise RecordError(msg)
    set_ticket(folder, identity, state, note=note, author=author)
