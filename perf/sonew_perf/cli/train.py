"""`sonew-perf train`: what training with an optimizer gains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sonew_autotune.settings import Exit
from sonew_perf.cli.options import Device, Json, among, exit_codes, find, print_lines
from sonew_perf.errors import DataError
from sonew_perf.machine import headline
from sonew_perf.records import files
from sonew_perf.tables import plan_lines
from sonew_perf.training import report, summary
from sonew_perf.training import runs as training
from sonew_perf.training.idx import find_train_images, read_images

RATES: Final = [4e-4, 1.2e-3, 3.6e-3, 1.08e-2, 3.24e-2]  # factor 3; an optimum at either end is not judged
TRAINED_BANDS: Final = [1]
METHODS: Final = list(training.METHODS)
DEFAULT_METHODS: Final = ["sonew", training.BASELINE]


def _train_all(runs: Sequence[training.Run], data: Path, device: torch.device, output: Path | None) -> list[files.Entry]:
    """The entry of every run; with an output, new ones are in the file before the next run begins."""
    images = read_images(find_train_images(data))
    record = files.read_entries(output) if output is not None else []
    entries: list[files.Entry] = []
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("training", total=len(runs))
        results = training.train_all(runs, images, device, record)
        for run in runs:
            name = f"{run.label}, lr {run.lr:.4g}, seed {run.seed}"
            progress.update(task, description=name)
            entry, new = next(results)
            entries.append(entry)
            if new and output is not None:
                record.append(entry)
                files.write_entries(output, record)
            progress.advance(task)
            if not console.is_terminal:
                typer.echo(f"{len(entries)}/{len(runs)} {name}: loss {entry['loss']}{'' if new else ' (recorded)'}", err=True)
    return entries


def _print_training(
    runs: Sequence[training.Run], entries: Sequence[files.Entry], curves: Sequence[summary.Curve], comparisons: Sequence[summary.Comparison]
) -> None:
    last = min(training.LAST_STEPS, runs[0].steps)
    title = f"MNIST autoencoder, {runs[0].steps} steps of {runs[0].batch} images, {training.LR_RULE} lr: mean loss of the last {last} steps"
    by_label: dict[str, list[files.Entry]] = {}
    for run, entry in zip(runs, entries, strict=True):
        by_label.setdefault(run.label, []).append(entry)
    console = Console()
    console.print(report.grid_table(curves, title))
    console.print(report.method_table(curves, by_label, headline(entries[0]["machine"])))
    print_lines(console, plan_lines(by_label))
    print_lines(console, [report.comparison_line(comparison) for comparison in comparisons])


def train(
    *,
    data: Annotated[
        Path | None, typer.Option(envvar="SONEW_DATA", help="Folder with MNIST's train-images-idx3-ubyte, gzipped or not.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of a run.")] = 300,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ... per method and learning rate.")] = 3,
    lr: Annotated[list[float], typer.Option(min=0, help="Learning rates of the grid; repeatable.")] = RATES,
    band: Annotated[list[int], typer.Option(min=0, help="Bands of SONew; repeatable.")] = TRAINED_BANDS,
    method: Annotated[
        list[str], typer.Option(help="sonew, sonew-bf16-state or adamw; repeatable.", callback=among(METHODS))
    ] = DEFAULT_METHODS,
    batch: Annotated[int, typer.Option(min=1, help="Images per step.")] = 1000,
    device: Device = "auto",
    as_json: Json = False,
    output: Annotated[Path | None, typer.Option(help="Record file: results are added as they come, and found there are reused.")] = None,
) -> None:
    """Train the MNIST autoencoder with each method over a grid of learning rates; compare the mean loss of the last 20 steps.

    The learning rate is constant. Weights and order of the images depend on the seed alone.
    """
    with exit_codes():
        if data is None:
            msg = "no images: neither --data nor SONEW_DATA is set. Name the folder that holds MNIST's train-images-idx3-ubyte(.gz)."
            raise DataError(msg)
        where = find(device)
        rates, bands, methods = sorted(set(lr)), list(dict.fromkeys(band)), list(dict.fromkeys(method))
        runs = training.grid(methods, bands, rates, range(seeds), steps=steps, batch=batch)
        try:
            entries = _train_all(runs, data, where, output)
        except KeyboardInterrupt:
            kept = (
                f"finished runs are in {output}: the same command goes on from there" if output else "pass --output to keep finished runs"
            )
            typer.echo(f"interrupted; {kept}", err=True)
            raise typer.Exit(Exit.INTERRUPTED) from None
    curves = summary.curves(runs, entries)
    comparisons = summary.comparisons(curves)
    if as_json:
        typer.echo(files.document(entries), nl=False)
        print_lines(Console(stderr=True), [report.comparison_line(comparison) for comparison in comparisons])
    else:
        _print_training(runs, entries, curves, comparisons)
    if not all(comparison.judged for comparison in comparisons):
        raise typer.Exit(Exit.NOT_JUDGED)
