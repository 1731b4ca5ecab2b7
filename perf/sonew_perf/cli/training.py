"""What `sonew-perf train` does with its options: searches, trains, keeps and prints."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sonew_autotune.settings import Exit
from sonew_perf.cli.options import find
from sonew_perf.records import files
from sonew_perf.records.files import Entry
from sonew_perf.records.index import Index
from sonew_perf.records.runs import BASELINES
from sonew_perf.suite.identity import describe_machine, new_run
from sonew_perf.suite.keeping import Place, keep
from sonew_perf.training.asked import Asked, make_runs
from sonew_perf.training.loop import mean_every
from sonew_perf.training.runs import Run, by_label
from sonew_perf.training.running import keep_unfinished, train_all, unfinished_path
from sonew_perf.training.tasks.data import Data
from sonew_perf.training.tasks.table import TASKS


class TrainingProgress:
    """A bar over the mean losses of all runs, or lines where nobody watches."""

    def __init__(self, progress: Progress, runs: Sequence[Run], data: Data) -> None:
        self._progress, self._runs = progress, runs
        self._means = {run: -(-run.steps // mean_every(TASKS[run.task], data, run.batch)) for run in runs}
        self._task: TaskID = progress.add_task("training", total=sum(self._means.values()))
        self._before = 0

    def told(self, run: Run, mean: int, loss: float) -> None:
        """A mean loss of a run."""
        name = f"{run.label}, lr {run.settings.lr:.4g}, seed {run.seed}"
        self._progress.update(self._task, description=f"{name}: loss {loss:.2f}", completed=self._before + mean + 1)

    def ended(self, number: int, entry: Entry, *, new: bool) -> None:
        """A run ended."""
        run = self._runs[number]
        self._before += self._means[run]
        self._progress.update(self._task, completed=self._before)
        if not self._progress.console.is_terminal:
            name = f"{run.label}, lr {run.settings.lr:.4g}, seed {run.seed}"
            typer.echo(f"{number + 1}/{len(self._runs)} {name}: loss {entry['loss']}{'' if new else ' (recorded)'}", err=True)


@contextmanager
def _progress() -> Iterator[Progress]:
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield progress


def _recorded(place: Place, unfinished: Path) -> list[Entry]:
    """What earlier commands finished: of the output file, or of the store."""
    if place.output is not None:
        return files.read_entries(place.output)
    index = Index.open(place.folder, BASELINES if BASELINES.is_dir() else None)
    try:
        return files.read_entries(unfinished) + index.training_entries()
    finally:
        index.close()


def train_runs(runs: Sequence[Run], data: Data, device: torch.device, place: Place, *, counters: bool, label: str) -> list[Entry]:
    """The entry of every run; new ones are kept before the next run begins.

    Raises:
        RecordError: a place cannot be written. DataError: the data does not fill a batch. typer.Exit: interrupted.
    """
    unfinished = unfinished_path(place.folder, runs)
    record = _recorded(place, unfinished)
    about = new_run(describe_machine(device.type), arguments=sys.argv[1:], label=label)
    entries: list[Entry] = []
    fresh: list[Entry] = [entry for entry in files.read_entries(unfinished)] if place.stores else []
    with _progress() as shown:
        progress = TrainingProgress(shown, runs, data)
        told = {run: lambda mean, loss, run=run: progress.told(run, mean, loss) for run in runs}
        try:
            for number, (entry, new) in enumerate(train_all(runs, data, device, record, counters=counters, told=told)):
                entries.append(entry)
                progress.ended(number, entry, new=new)
                if not new:
                    continue
                if place.output is not None:
                    record.append(entry)
                    keep(about, record, Place(output=place.output))
                if place.stores:
                    fresh.append(entry)
                    keep_unfinished(unfinished, fresh)
        except KeyboardInterrupt:
            where = place.output if place.output is not None else unfinished
            typer.echo(f"interrupted; {len(entries)} of {len(runs)} runs are kept in {where}: the same command goes on from there", err=True)
            raise typer.Exit(Exit.INTERRUPTED) from None
    if place.stores and fresh:
        for path in keep(about, fresh, Place(store=place.folder)):
            typer.echo(f"Written to {path}", err=True)
        unfinished.unlink(missing_ok=True)
    return entries


def run_training(asked: Asked, data: Path | None, *, download: bool, device: str, place: Place, label: str, as_json: bool) -> None:
    """Search if asked, train, keep and print.

    Raises:
        DataError: no data, or data that does not suit the task. NoDeviceError: the device cannot be used.
        RecordError: a place cannot be read or written. typer.Exit: interrupted, or nothing could be judged.
    """
    where, loaded = find(device), TASKS[asked.task].load(data)
    del download
    runs = make_runs(asked, loaded)
    entries = train_runs(runs, loaded, where, place, counters=asked.counters, label=label)
    if as_json:
        typer.echo(files.document(entries), nl=False)
        return
    for label_, group in by_label(runs, entries).items():
        print(label_, [e["loss"] for e in group], [e["losses"][-1] for e in group], group[0]["step_s"], group[0]["optimizer_step_s"])
