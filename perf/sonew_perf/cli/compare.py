"""`sonew-perf compare`: two commits or two configurations against each other, in one run."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from sonew.errors import InvalidConfigError
from sonew_autotune.problems import MODELS
from sonew_autotune.settings import Exit
from sonew_autotune.store.files import prepare_folder
from sonew_perf.cli.options import Device, Json, Output, Store, among, exit_codes, find, print_lines
from sonew_perf.compare import report
from sonew_perf.compare.cases import EFFORTS, FRAMEWORKS, Case, chosen_cases
from sonew_perf.compare.comparison import Progress as Steps
from sonew_perf.compare.comparison import Settings, exit_code
from sonew_perf.compare.comparison import compare as compare_cases
from sonew_perf.compare.environments import ENVIRONMENTS, SHARED, differing_dependencies, interpreter
from sonew_perf.compare.processes import Subject, launched
from sonew_perf.compare.record import FIX, document, make_record, store_record, write_record
from sonew_perf.compare.rounds import INTERRUPTED, Limits
from sonew_perf.compare.sides import WORKING_TREE, Side, checked_out, parse_side
from sonew_perf.records.files import write_text
from sonew_perf.records.runs import store_folder
from sonew_perf.suite.identity import describe_machine, repeat_command
from sonew_perf.suite.run import free_bytes

DEFAULTS: Final = Settings()
BUDGET_S: Final = 1800.0
SPARE: Final = 0.8  # share of the free memory that both sides together may take


def _cases(effort: str, **chosen: Sequence[Any] | None) -> list[Case]:
    """The effort's cases, with what was asked for in its place; a size or a model replaces both."""
    wanted = {name: tuple(values) for name, values in chosen.items() if values}
    if "sizes" in wanted or "models" in wanted:
        wanted = {"sizes": (), "models": (), **wanted}
    return chosen_cases(replace(EFFORTS[effort], **wanted))


@contextmanager
def _subjects(
    sides: Sequence[Side], pythons: Sequence[Path | None], environment: str, slowdowns: Sequence[float]
) -> Iterator[list[Subject]]:
    """Both sides with their files and interpreters, as long as they are measured."""
    with ExitStack() as held:
        trees = [held.enter_context(checked_out(side)) for side in sides]
        differing = differing_dependencies(*trees) if environment == SHARED and not any(pythons) else []
        if differing:
            note = f"note: {' and '.join(differing)} differ between the sides, and both run in this environment"
            typer.echo(f"{note}; --environment own makes one for each.", err=True)
        yield [
            Subject(side=side, tree=tree, python=interpreter(side, tree, environment=environment, python=python), slowdown=slowdown)
            for side, tree, python, slowdown in zip(sides, trees, pythons, slowdowns, strict=True)
        ]


@contextmanager
def _progress() -> Iterator[Steps]:
    """A bar on a terminal, a line per launch elsewhere."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("launches"), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as shown:
        tasks: list[TaskID] = []

        def begin(what: str, launches: int) -> None:
            tasks.append(shown.add_task(what, total=launches))
            if not console.is_terminal:
                typer.echo(f"{what}, {launches} launches", err=True)

        yield Steps(begin, lambda: shown.advance(tasks[-1]))


def _memory_of_a_side(device: str) -> int | None:
    free = free_bytes(device)
    return None if free is None else int(SPARE * free / 2)


def _sides(base: str, head: str | None, *, itself: bool) -> tuple[Side, Side]:
    if itself and head is not None:
        msg = f"--aa compares one side with itself, and {head!r} is a second one. Leave it out, or leave out --aa."
        raise InvalidConfigError(msg)
    return parse_side(base), parse_side(base if itself else head or WORKING_TREE)


def compare(
    base: Annotated[
        str, typer.Argument(help="A commit, branch or tag, or . for the working tree; then @on, @off, @pinned or @STORE.json.")
    ],
    head: Annotated[str | None, typer.Argument(help="The side that may have become slower. Default: the working tree.")] = None,
    *,
    itself: Annotated[bool, typer.Option("--aa", help="Compare BASE with itself: what this machine can see, and its noise floor.")] = False,
    effort: Annotated[str, typer.Option(help="quick, normal or full: how many cases.", callback=among(list(EFFORTS)))] = "quick",
    only: Annotated[list[str] | None, typer.Option(help="Only cases whose name matches, such as '*band 1,*'; repeatable.")] = None,
    band: Annotated[list[int] | None, typer.Option(help="Bands; repeatable.")] = None,
    size: Annotated[list[int] | None, typer.Option(min=1, help="Elements of one tensor; repeatable.")] = None,
    model: Annotated[list[str] | None, typer.Option(help=f"Whose tensors: {', '.join(MODELS)}; repeatable.")] = None,
    state: Annotated[list[str] | None, typer.Option(help="Type of the state: float32 or bfloat16; repeatable.")] = None,
    framework: Annotated[list[str] | None, typer.Option(help=f"{' or '.join(FRAMEWORKS)}; repeatable.")] = None,
    launches: Annotated[int, typer.Option(help="Times both sides' processes are started.")] = DEFAULTS.launches,
    rounds: Annotated[int, typer.Option(help="Rounds per launch.")] = DEFAULTS.rounds,
    tolerance: Annotated[float, typer.Option(help="Percent that do not matter: a case inside them is SAME.")] = 100 * DEFAULTS.tolerance,
    fail_on: Annotated[float | None, typer.Option(help="Percent of confirmed slowdown that fail. Default: --tolerance.")] = None,
    budget: Annotated[float, typer.Option(min=1, help="Seconds for everything; what is not timed then is NO-DATA or UNSURE.")] = BUDGET_S,
    sequential: Annotated[bool, typer.Option("--sequential", help="Base before head in each round, instead of taking turns.")] = False,
    inject: Annotated[float, typer.Option(min=0, help="Slow the head down by so many percent, to see whether it is found (CPU).")] = 0.0,
    environment: Annotated[
        str, typer.Option(help="shared: both run in this one; own: make env for each commit.", callback=among(ENVIRONMENTS))
    ] = SHARED,
    python_base: Annotated[Path | None, typer.Option(help="Interpreter of the base instead.")] = None,
    python_head: Annotated[Path | None, typer.Option(help="Interpreter of the head instead.")] = None,
    device: Device = "auto",
    as_json: Json = False,
    markdown: Annotated[Path | None, typer.Option(help="Also write the table as markdown to this file.")] = None,
    output: Annotated[Path | None, typer.Option(help="Also write the record to this file.")] = None,
    store: Store = None,
    keep: Annotated[bool, typer.Option("--keep/--no-keep", help="Add the record to the store, where the dashboard finds it.")] = True,
) -> None:
    """Compare two commits, or two configurations of one, interleaved in one run: SLOWER, FASTER, SAME, UNSURE or NO-DATA per case.

    Exit code 1: a confirmed slowdown beyond --fail-on; 3: one cannot be ruled out. Examples: compare main; compare .@off .@on;
    compare v0.1.0 main --effort full; compare . --aa.
    """
    with exit_codes():
        percent = tolerance if fail_on is None else fail_on
        settings = Settings(launches=launches, rounds=rounds, tolerance=tolerance / 100, fail_on=percent / 100, turns=not sequential)
        cases = _cases(effort, frameworks=framework, bands=band, sizes=size, models=model, states=state, only=only)
        sides, where = _sides(base, head, itself=itself), find(device)
        if inject and where.type != "cpu":
            msg = f"inject={inject:g} on a {where.type} device is not allowed: waiting on the host slows no GPU down. Pass --device cpu."
            raise InvalidConfigError(msg)
        folder = store or store_folder()
        for place in [*([folder] if keep else []), *(path.absolute().parent for path in (output, markdown) if path is not None)]:
            prepare_folder(place, subject=str(place), fix=FIX)  # before, not after minutes of measuring
        started, load = time.monotonic(), round(os.getloadavg()[0], 2)
        limits, slowdowns = Limits(started + budget, _memory_of_a_side(where.type)), (0.0, inject / 100)
        with _subjects(sides, (python_base, python_head), environment, slowdowns) as (first, second), _progress() as steps:
            judged = compare_cases(
                cases,
                lambda framework: launched(first, second, framework=framework, device=where.type, deadline=limits.deadline),
                settings,
                limits,
                steps,
            )
        record = make_record(
            judged,
            base=sides[0],
            head=sides[1],
            settings=settings,
            itself=itself,
            slowdown=slowdowns[1],
            machine=describe_machine(where.type),
            load=load,
            seconds=time.monotonic() - started,
            command=repeat_command(sys.argv[1:]),
        )
        written = [store_record(folder, record)] if keep else []
        written += [write_record(output, record)] if output is not None else []
        if markdown is not None:
            write_text(markdown, report.markdown(record), fix=FIX)
        _show(record, written, as_json=as_json)
    raise typer.Exit(Exit.INTERRUPTED if limits.stopped == INTERRUPTED else exit_code(judged, settings.fail_on))


def _show(record: dict[str, Any], written: Sequence[Path], *, as_json: bool) -> None:
    if as_json:
        typer.echo(document(record), nl=False)
    else:
        console = Output()
        console.print(report.table(record))
        print_lines(console, report.conclusion(record))
    print_lines(Console(stderr=True), [f"Record: {path}" for path in written])
