"""What `sonew-perf train` does with its options: searches, trains, keeps and prints."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import DownloadColumn, Progress, TaskID

from sonew.documents import parse_json, read_regular_file
from sonew.errors import InvalidConfigError
from sonew_autotune.settings import Exit
from sonew_autotune.store.files import prepare_folder
from sonew_perf.cli.options import Output, find, print_lines
from sonew_perf.cli.searching import find_runs, progress_bar
from sonew_perf.errors import RecordError
from sonew_perf.records import files
from sonew_perf.records.files import Entry
from sonew_perf.records.index import Index
from sonew_perf.records.model import Run as RecordedRun
from sonew_perf.records.reading import read_record
from sonew_perf.records.runs import BASELINES, FIX, RUNS
from sonew_perf.suite.identity import describe_machine, new_run
from sonew_perf.suite.keeping import Place, keep
from sonew_perf.tables import plan_lines
from sonew_perf.training import report
from sonew_perf.training.asked import Asked
from sonew_perf.training.loop import mean_every
from sonew_perf.training.race import Race, races
from sonew_perf.training.results import read_result
from sonew_perf.training.running import UNFINISHED, add_unfinished, train_all, unfinished_path
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
        self._progress.update(self._task, description=escape(f"{_name(run)}: loss {loss:.4g}"), completed=self._before + mean + 1)

    def ended(self, number: int, entry: Entry, *, new: bool) -> None:
        """A run ended."""
        run = self._runs[number]
        self._before += self._means[run]
        self._progress.update(self._task, completed=self._before)
        if not self._progress.console.is_terminal:
            said = "diverged" if entry["loss"] is None else f"loss {entry['loss']}"
            typer.echo(f"{number + 1}/{len(self._runs)} {_name(run)}: {said}{'' if new else ' (recorded)'}", err=True)


def _name(run: Run) -> str:
    return f"{run.label}, lr {run.settings.lr:.4g}, seed {run.seed}"


def _stored(place: Place) -> list[Entry]:
    """The training runs of the store and of the committed records."""
    index = Index.open(place.folder, BASELINES if BASELINES.is_dir() else None)
    try:
        return index.training_entries()
    finally:
        index.close()


def _recorded(place: Place, unfinished: Path) -> list[Entry]:
    """What earlier commands finished, of the output file or of the store; what is not whole is left out, and trained again."""
    entries = files.read_entries(unfinished) + _stored(place) if place.output is None else files.read_entries(place.output)
    whole = []
    for entry in entries:
        with suppress(RecordError):
            if (result := read_result(entry)) is not None:
                whole.append(result.entry)
    return whole


def _check_record(path: Path) -> None:
    """Make sure that a file can be added to: `files.read_entries` takes what cannot be written again, as NaN, and waits for pipes.

    Raises:
        RecordError: it is there and no record.
    """
    try:
        parse_json(read_regular_file(path), strict=True)
    except FileNotFoundError:
        return
    except (OSError, InvalidConfigError) as error:
        msg = f"{path} is not readable as JSON ({error}). Move it away or pass another --output."
        raise RecordError(msg) from error
    files.read_entries(path)


def _ready(place: Place) -> None:
    """Make sure that runs can be kept, before anything is trained.

    Raises:
        RecordError: the output is there and no record. InvalidConfigError: a place cannot be written.
    """
    if place.output is not None:
        prepare_folder(place.output.resolve().parent, subject=str(place.output), fix=files.OUTPUT_FIX)
        _check_record(place.output)
    if place.stores:
        for name in (RUNS, UNFINISHED):
            prepare_folder(place.folder / name, subject=str(place.folder), fix=FIX)


def train_runs(runs: Sequence[Run], data: Data, device: torch.device, place: Place, *, counters: bool, label: str) -> list[Entry]:
    """The entry of every run; new ones are kept before the next run begins, for the store beside it until the last one ends.

    Raises:
        RecordError: a place cannot be written. DataError: the data does not fill a batch. typer.Exit: interrupted.
    """
    unfinished = unfinished_path(place.folder, runs, data, device)
    known = _recorded(place, unfinished)
    about = new_run(describe_machine(device.type), arguments=sys.argv[1:], label=label)
    entries: list[Entry] = []
    reused = 0
    fresh = files.read_entries(unfinished) if place.stores else []
    with progress_bar() as shown:
        progress = TrainingProgress(shown, runs, data)
        told = {run: lambda mean, loss, run=run: progress.told(run, mean, loss) for run in runs}
        try:
            for number, (found, new) in enumerate(train_all(runs, data, device, known, counters=counters, told=told)):
                entry = found | {"commit": about.commit} if new else found  # a record's own head is its last command's
                if new and place.output is not None:
                    with files.adding(place.output) as others:
                        keep(about, [*others, entry], Place(output=place.output))
                if new and place.stores:
                    fresh.append(entry)
                    add_unfinished(unfinished, fresh)
                entries.append(entry)
                reused += not new
                progress.ended(number, entry, new=new)
        except KeyboardInterrupt:
            where = place.output if place.output is not None else unfinished
            typer.echo(
                f"interrupted; {len(entries)} of {len(runs)} runs are kept in {where}: the same command goes on from there", err=True
            )
            raise typer.Exit(Exit.INTERRUPTED) from None
        except Exception:  # a run that fails may do so again: what was trained before it does not wait for it
            with suppress(RecordError):
                _store(about, fresh, place, unfinished)
            raise
    if reused:
        typer.echo(f"{reused} of {len(runs)} runs were recorded before, on such a machine. To train anew pass --output FILE.", err=True)
    _store(about, fresh, place, unfinished)
    return entries


def _store(about: RecordedRun, fresh: Sequence[Entry], place: Place, unfinished: Path) -> None:
    """Hand what was trained over to the store."""
    if not place.stores or not fresh:
        return
    for path in keep(about, fresh, Place(store=place.folder)):
        typer.echo(f"Written to {path}", err=True)
    unfinished.unlink(missing_ok=True)


def _fetched(task: str) -> Path:
    """The folder of a task's data, fetched."""
    if task != "autoencoder":
        msg = f"--download is not allowed with the task {task!r}: only the autoencoder's images are fetched. Leave it out, or pass --data."
        raise InvalidConfigError(msg)
    with progress_bar(DownloadColumn()) as shown:
        bar = shown.add_task("fetching MNIST", total=None)
        return fetch_mnist(told=lambda received, total: shown.update(bar, completed=received, total=total))


def run_training(asked: Asked, data: Path | None, *, download: bool, device: str, place: Place, label: str, as_json: bool) -> None:
    """Search if asked, train, keep and print.

    Raises:
        DataError: no data, or data that does not suit the task. NoDeviceError: the device cannot be used.
        InvalidConfigError: a place cannot be written, before anything is trained. RecordError: nor read, or it has become so.
        typer.Exit: interrupted, or nothing could be judged.
    """
    where, loaded = find(device), TASKS[asked.task].load(_fetched(asked.task) if download and data is None else data)
    _ready(place)
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
        entries = _stored(place)
    found = races(entries)
    kept = [result.entry for race in found for result in race.results]
    if older := sum(entry.get("kind") == KIND for entry in entries) - len(kept):
        typer.echo(f"{older} training runs of an older form, without a label, are left out", err=True)
    if not kept:
        typer.echo("no training runs: train first, or name a record with --record", err=True)
        raise typer.Exit(Exit.NOT_JUDGED)
    _print(found, kept, as_json=as_json, plans={})
