"""`sonew-perf gpu`: everything that a GPU allows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sonew_autotune.settings import Exit
from sonew_perf.cli.options import Json, among, exit_codes, print_lines
from sonew_perf.gpu import report as gpu_report
from sonew_perf.gpu.plan import STAGES, make_plan
from sonew_perf.gpu.run import BUDGET_S, GpuRun, Options, document, no_gpu, run_gpu
from sonew_perf.records import files


def _print_gpu_run(done: GpuRun) -> None:
    console = Console()
    for entry in done.record["entries"]:
        if entry["result"].get("workload"):
            console.print(gpu_report.speed_table(entry["unit"], entry["result"]))
    console.print(gpu_report.target_table(done.rows, done.record["device"]["name"], done.warning))
    if not done.record["complete"]:
        print_lines(console, ["Not everything is done: the same command goes on from here."])
    print_lines(console, [f"Record: {done.path}"])


def gpu(
    *,
    plan: Annotated[bool, typer.Option("--plan", help="List what would be done, and stop.")] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"{', '.join(STAGES)}; repeatable.", callback=among(STAGES))] = None,
    budget: Annotated[float, typer.Option(help="Seconds for this call; the next one goes on from there.")] = BUDGET_S,
    out: Annotated[Path | None, typer.Option(help="The record; default: beside the work file in the user's state folder.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what earlier calls finished.")] = False,
    as_json: Json = False,
) -> None:
    """On a machine with a GPU: check the kernels on it, tune every band, time everything beside its peers. Resumable.

    Without a usable GPU it says so in one line. Exit code 1: the correctness ladder failed; a missed target is no failure.
    """
    with exit_codes():
        stages = tuple(stage for stage in STAGES if only is None or stage in only)
        options = Options(stages=stages, budget_s=budget, out=out, fresh=fresh)
        if plan:
            _print_plan(stages, budget, as_json=as_json)
            return
        if (reason := no_gpu()) is not None:
            typer.echo(f"No usable GPU, nothing is measured: {reason}", err=as_json)
            if as_json:
                typer.echo(files.document([]), nl=False)
            return
        try:
            done = run_gpu(options, say=lambda line: typer.echo(line, err=True))
        except KeyboardInterrupt:
            typer.echo("interrupted; finished units are kept: the same command goes on from there", err=True)
            raise typer.Exit(Exit.INTERRUPTED) from None
    if as_json:
        typer.echo(document(done.record), nl=False)
    else:
        _print_gpu_run(done)
    if done.ladder_failed:
        raise typer.Exit(Exit.CHECK_FAILED)


def _print_plan(stages: tuple[str, ...], budget: float, *, as_json: bool) -> None:
    units = make_plan(stages=stages)
    if as_json:
        entries = [{"unit": u.name, "stage": u.stage, "seconds": u.seconds, "elastic": u.elastic, "cases": list(u.cases)} for u in units]
        typer.echo(files.document(entries), nl=False)
        return
    console = Console()
    console.print(gpu_report.plan_table(units, budget))
    print_lines(console, gpu_report.plan_lines(units))
