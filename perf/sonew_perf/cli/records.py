"""`sonew-perf runs`, `pin`, `unpin`, `gc` and `export`: what the store holds, keeps and gives away."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.measure import Measurement

from sonew_autotune.commands.text import cell, printable
from sonew_perf.cli.options import Json, Store, among, exit_codes, print_lines
from sonew_perf.errors import RecordError
from sonew_perf.records import asv, exporting, files, retention
from sonew_perf.records.index import Index
from sonew_perf.records.machines import describe
from sonew_perf.records.model import Run
from sonew_perf.records.runs import Pin, changing, read_pins, store_folder, write_pins
from sonew_perf.tables import plain_table

COLUMNS: Final = ("date", "commit", "points", "failed", "kept", "label", "run")
WIDEST: Final = 2**16  # columns of a table
ASV: Final = "asv"
FORMATS: Final = (*exporting.FORMATS, ASV)
Named = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, as `sonew-perf runs` lists it.")]


def _entry(run: Run, points: Counter[str]) -> dict[str, Any]:
    return {
        **asdict(run),
        "machine": describe(run.machine),
        "points": points["done"],
        "failed": points["failed"],
        "skipped": points["skipped"],
    }


def _opened(folder: Path, *, rebuild: bool) -> Index:
    """The index; of one that is made anew stderr says how large it is."""
    if not rebuild:
        return Index.open(folder)
    begin = time.perf_counter()
    index = Index.rebuild(folder)
    spent = time.perf_counter() - begin
    size = f"{len(index.runs())} runs, {len(index.series())} series, {len(index.summary_points())} points"
    typer.echo(f"The index was made anew in {spent:.2f} s: {size}.", err=True)
    return index


def _table_lines(found: Sequence[Run], counts: Mapping[str, Counter[str]], console: Console) -> list[str]:
    """A line per run, which the id ends: other commands take it, so it is never cut or wrapped, however narrow the console is."""
    table = plain_table(COLUMNS)
    for column in table.columns:
        column.no_wrap = column.header != "label"
        column.justify = "right" if column.header in ("points", "failed") else "left"
    for run in found:
        done, bad = counts[run.id]["done"], counts[run.id]["failed"]
        kept = "committed" if run.origin == "baseline" else "pinned" if run.pinned else ""
        texts = run.date[:16].replace("T", " "), run.commit[:8], str(done), str(bad), kept, run.label, run.id
        table.add_row(*map(cell, texts))
    needed = Measurement.get(console, console.options.update(max_width=WIDEST), table)
    width = max(console.width, needed.minimum) if console.is_terminal else needed.maximum
    drawn = io.StringIO()
    Console(file=drawn, width=width, color_system=None).print(table)
    return [line.rstrip() for line in drawn.getvalue().splitlines()]


def runs(
    *,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make the index anew from the files first.")] = False,
    as_json: Json = False,
    store: Store = None,
) -> None:
    """List the runs of the store and the committed records, by date, and the files that cannot be used."""
    with exit_codes():
        index = _opened(store or store_folder(), rebuild=rebuild)
        found, problems = index.runs(), index.problems()
        counts: dict[str, Counter[str]] = {run.id: Counter() for run in found}
        for point in index.summary_points():
            counts[point.run][point.status] += 1
    if as_json:
        typer.echo(files.document([_entry(run, counts[run.id]) for run in found]), nl=False)
        print_lines(Console(stderr=True), [printable(f"{problem.path}: {problem.reason}") for problem in problems])
        return
    console = Console()
    print_lines(console, [f"{len(found)} runs", *_table_lines(found, counts, console)])
    print_lines(console, [printable(f"Left out: {problem.path}: {problem.reason}") for problem in problems])


def pin(run: Named, *, note: Annotated[str, typer.Option(help="Why it stays.")] = "", store: Store = None) -> None:
    """Keep a run for good: `gc` never drops it."""
    with exit_codes():
        folder = store or store_folder()
        with changing(folder):
            known = {found.id for found in Index.open(folder).runs()}
            if run not in known:
                msg = f"run {run!r} is none of the {len(known)} runs of {folder}. `sonew-perf runs` lists them."
                raise RecordError(msg)
            write_pins(folder, read_pins(folder) | {run: Pin(run, note, datetime.now(UTC).isoformat(timespec="seconds"))})
    typer.echo(f"{run} is pinned.")


def unpin(run: Named, *, store: Store = None) -> None:
    """Let `gc` drop a run again."""
    with exit_codes():
        folder = store or store_folder()
        with changing(folder):
            pins = read_pins(folder)
            if pins.pop(run, None) is None:
                msg = f"run {run!r} is none of the {len(pins)} pinned ones: {', '.join(pins) or 'there are none'}."
                raise RecordError(msg)
            write_pins(folder, pins)
    typer.echo(f"{run} is no longer pinned.")


def gc(
    *,
    keep_last: Annotated[int, typer.Option(min=1, help="Keep so many of the newest runs of each machine.")],
    keep_tagged: Annotated[bool, typer.Option("--keep-tagged", help="Also keep runs of commits that carry a git tag.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it nothing is removed.")] = False,
    as_json: Json = False,
    store: Store = None,
) -> None:
    """Drop old runs from the store; says what would go unless --yes is given.

    Never dropped: pinned and labelled runs, those that an open ticket or a comparison names, committed records, files that are no records.
    """
    with exit_codes():
        folder = store or store_folder()
        with changing(folder):
            plan = retention.plan_gc(folder, keep_last=keep_last, tagged=retention.tagged_commits() if keep_tagged else ())
            if yes:
                retention.apply_gc(plan)
    if as_json:
        entries = [{"run": drop.run.id, "date": drop.run.date, "bytes": drop.size, "dropped": yes} for drop in plan.drops]
        typer.echo(files.document(entries), nl=False)
        return
    print_lines(Console(), _gc_lines(plan, dropped=yes))


def _gc_lines(plan: retention.Plan, *, dropped: bool) -> list[str]:
    word = "dropped" if dropped else "would be dropped"
    lines = [f"{drop.run.id}: {word}, {drop.size / 1e3:.1f} kB" for drop in plan.drops]
    if plan.left_over:
        lines.append(f"{len(plan.left_over)} unfinished files of writers that were killed: {word}")
    why = ", ".join(f"{count} {reason}" for reason, count in Counter(plan.kept.values()).most_common())
    lines.append(
        f"{len(plan.drops)} runs, {sum(drop.size for drop in plan.drops) / 1e6:.2f} MB: {word}; {len(plan.kept)} stay ({why or 'none'})."
    )
    return lines if dropped or not plan.drops else [*lines, "Nothing is removed yet: pass --yes."]


def export(
    *,
    form: Annotated[str, typer.Option("--format", help=f"{', '.join(FORMATS)}.", callback=among(FORMATS))] = "csv",
    series: Annotated[
        str, typer.Option(metavar="PATTERN", help="Only series with this in their title or id; * and ? stand for others.")
    ] = "",
    output: Annotated[Path | None, typer.Option(help="Write this file; for asv, fill this folder.")] = None,
    store: Store = None,
) -> None:
    """Write the store's points for other programs: csv and json, a folder of asv's results, a table for Apache Otava."""
    with exit_codes():
        index = Index.open(store or store_folder())
        if not exporting.chosen(index, series):
            msg = f"series={series!r} is in the title of none of the {len(index.series())} series. `sonew-perf export` without it has all."
            raise RecordError(msg)
        if form == ASV:
            if output is None:
                msg = "format='asv' is a folder of files. Pass --output FOLDER."
                raise RecordError(msg)
            done = asv.write(index, output, series)
        else:
            done = exporting.FORMATS[form](index, series)
            if output is not None:
                files.write_text(output, done.text, fix=files.OUTPUT_FIX)
    if output is None:
        typer.echo(done.text, nl=False)
    lost = " asv wants a commit, and none of these runs has one." if form == ASV and not done.runs else ""
    typer.echo(f"{done.points} points of {done.runs} runs.{lost}", err=True)
