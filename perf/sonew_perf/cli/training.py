"""What `sonew-perf train` does with its options: searches, trains, keeps and prints."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sonew.errors import InvalidConfigError
from sonew_autotune.settings import Exit
from sonew_perf.cli.options import Output, find, print_lines
from sonew_perf.cli.searching import find_runs
from sonew_perf.records import files
from sonew_perf.records.files import Entry
from sonew_perf.records.index import Index
from sonew_perf.records.reading import read_record
from sonew_perf.records.runs import BASELINES
from sonew_perf.suite.identity import describe_machine, new_run
from sonew_perf.suite.keeping import Place, keep
from sonew_perf.tables import plan_lines
from sonew_perf.training import report
from sonew_perf.training.asked import Asked
from sonew_perf.training.loop import mean_every
from sonew_perf.training.race import Race, races
from sonew_perf.training.running import keep_unfinished, train_all, unfinished_path
from sonew_perf.training.runs import KIND, Run, by_label
from sonew_perf.training.tasks.data import Data
from sonew_perf.training.tasks.download import fetch_mnist
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
    fresh = files.read_entries(unfinished) if place.stores else []
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
            typer.echo(
                f"interrupted; {len(entries)} of {len(runs)} runs are kept in {where}: the same command goes on from there", err=True
            )
            raise typer.Exit(Exit.INTERRUPTED) from None
    if place.stores and fresh:
        for path in keep(about, fresh, Place(store=place.folder)):
            typer.echo(f"Written to {path}", err=True)
        unfinished.unlink(missing_ok=True)
    return entries


def _fetched(task: str) -> Path:
    """The folder of a task's data, fetched."""
    if task != "autoencoder":
        msg = f"--download is not allowed with the task {task!r}: only the autoencoder's images are fetched. Leave it out, or pass --data."
        raise InvalidConfigError(msg)
    return fetch_mnist()


def run_training(asked: Asked, data: Path | None, *, download: bool, device: str, place: Place, label: str, as_json: bool) -> None:
    """Search if asked, train, keep and print.

    Raises:
        DataError: no data, or data that does not suit the task. NoDeviceError: the device cannot be used.
        RecordError: a place cannot be read or written. typer.Exit: interrupted, or nothing could be judged.
    """
    where, loaded = find(device), TASKS[asked.task].load(_fetched(asked.task) if download and data is None else data)
    runs = find_runs(asked, loaded, where, place, label=label)
    entries = train_runs(runs, loaded, where, place, counters=asked.counters, label=label)
    if not _print(races(entries), entries, as_json=as_json, plans=by_label(runs, entries)):
        raise typer.Exit(Exit.NOT_JUDGED)


def _print(found: Sequence[Race], entries: Sequence[Entry], *, as_json: bool, plans: Mapping[str, Sequence[Entry]]) -> bool:
    """Tables and sentences, or the entries as JSON; whether every optimum of a grid is judged."""
    obstacles = [line for race in found for line in report.obstacle_lines(race)]
    if as_json:
        typer.echo(files.document(entries), nl=False)
        print_lines(Console(stderr=True), obstacles)
        return not obstacles
    console = Output()
    for race in found:
        task = TASKS.get(race.conditions.task)
        name = report.title(race, race.conditions.task if task is None else task.title, "loss" if task is None else task.loss_name)
        for table in report.tables(race, name):
            console.print(table)
        print_lines(console, [*report.lines(race), ""])
    print_lines(console, plan_lines(plans))
    return not obstacles


def report_training(records: Sequence[Path], place: Place, *, as_json: bool) -> None:
    """Print what is known, without training: of the records named, else of the store and the committed records.

    Raises:
        RecordError: a record cannot be read. typer.Exit: no training run is known.
    """
    if records:
        entries = [{**entry, "run": path.stem} for path in records for entry in read_record(path, origin="store").entries]
    else:
        index = Index.open(place.folder, BASELINES if BASELINES.is_dir() else None)
        try:
            entries = index.training_entries()
        finally:
            index.close()
    found = races(entries)
    kept = [result.entry for race in found for result in race.results]
    if older := sum(entry.get("kind") == KIND for entry in entries) - len(kept):
        typer.echo(f"{older} training runs of an older form, without a label, are left out", err=True)
    if not kept:
        typer.echo("no training runs: train first, or name a record with --record", err=True)
        raise typer.Exit(Exit.NOT_JUDGED)
    _print(found, kept, as_json=as_json, plans={})
