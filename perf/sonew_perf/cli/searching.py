"""The search of `sonew-perf train --search`: every variant's settings are found, said and kept before anything is trained with them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sonew_autotune.settings import Exit
from sonew_perf.records import files
from sonew_perf.records.files import Entry
from sonew_perf.suite.identity import describe_machine, new_run
from sonew_perf.suite.keeping import Place, keep
from sonew_perf.training.asked import Asked, make_runs, variants
from sonew_perf.training.found import Found, Trial, search_entry
from sonew_perf.training.jax.request import check_trains_in_jax
from sonew_perf.training.running import UNFINISHED, keep_unfinished, unfinished_path
from sonew_perf.training.runs import Run
from sonew_perf.training.schedule import RULES
from sonew_perf.training.search import search
from sonew_perf.training.tasks.data import Data, steps_per_epoch


@contextmanager
def progress_bar(*columns: ProgressColumn) -> Iterator[Progress]:
    """A bar where somebody watches, with these columns after it; without any: how many of how many, and times."""
    console = Console(stderr=True)
    after = columns or (MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}"), BarColumn(), *after, console=console, disable=not console.is_terminal) as drawn:
        yield drawn


class SearchProgress:
    """A bar over the trials of all variants, and a line for each new trial.

    Args:
        progress: where they are drawn. variants: how many there are. wanted: trials of each.
    """

    def __init__(self, progress: Progress, variants: int, wanted: int) -> None:
        self._progress, self._wanted = progress, wanted
        self._task = progress.add_task("searching", total=variants * wanted)
        self._name, self._before, self._trials, self._best = "", 0, 0, math.inf

    def begin(self, name: str) -> None:
        """A variant's search begins."""
        self._name, self._trials, self._best = name, 0, math.inf

    def resume(self, trials: Sequence[Trial]) -> None:
        """Trials of an earlier command."""
        for trial in trials:
            self._count(trial)

    def mean(self, number: int, loss: float) -> None:
        """A mean loss of the trial that is under way."""
        said = f"{self._name}, trial {self._trials + 1}, mean {number + 1}: loss {loss:.4g}"
        self._progress.update(self._task, description=escape(said))

    def trial(self, trial: Trial) -> None:
        """A trial came to its end."""
        self._count(trial)
        place = f"{self._name}, trial {self._trials} of {self._wanted}"
        best = f", best {self._best:.5g}" if math.isfinite(self._best) else ""
        self.warn(f"{place}: {_settings(trial.settings)}: {_outcome(trial)}{best}")

    def warn(self, text: str) -> None:
        """A line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def end(self, found: Found) -> None:
        """A variant's search ended."""
        self._before += self._wanted
        self._progress.update(self._task, completed=self._before)
        said = ", ".join(f"{number} {outcome}" for outcome, number in found.outcomes.items())
        earlier = f"; {len(found.trials) - found.fresh} of an earlier command" if found.fresh < len(found.trials) else ""
        best = _settings({name: getattr(found.run.settings, name) for name in found.searched})
        self.warn(f"{self._name}: best loss {found.value:.5g} with {best} ({said}{earlier})")

    def _count(self, trial: Trial) -> None:
        self._trials += 1
        if trial.outcome == "finished" and trial.value is not None:
            self._best = min(self._best, trial.value)
        self._progress.update(self._task, completed=self._before + self._trials)


def _settings(settings: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in settings.items())


def _outcome(trial: Trial) -> str:
    if trial.value is None:
        return trial.outcome
    return f"loss {trial.value:.5g}" if trial.outcome == "finished" else f"{trial.outcome} after {trial.means} means at {trial.value:.5g}"


def _pending(place: Place, found: Found) -> Path:
    """Where a store keeps what a search came to until the runs that use it are trained."""
    return place.folder / UNFINISHED / f"{found.study}.json"


def _keep(found: Found, entry: Entry, place: Place, label: str, device: torch.device) -> None:
    """Keep a search: in the record that the user named, in place of an earlier state of it; for the store until there are runs."""
    if place.output is not None:
        with files.adding(place.output) as record:
            if entry not in record:
                others = [known for known in record if known.get("study") != found.study]
                about = new_run(describe_machine(device.type), arguments=sys.argv[1:], label=label)
                keep(about, [*others, entry], Place(output=place.output))
    if place.stores and found.fresh:
        keep_unfinished(_pending(place, found), [entry])


def _hand_over(searches: Sequence[Found], unfinished: Path, place: Place) -> None:
    """Put searches that the store does not have yet beside the finished runs of the command that is about to train."""
    pending = [path for found in searches if (path := _pending(place, found)).exists()]
    if not pending or not place.stores:
        return
    entries = [entry for path in pending for entry in files.read_entries(path)]
    studies = {entry.get("study") for entry in entries}
    kept = [entry for entry in files.read_entries(unfinished) if entry.get("study") not in studies]
    keep_unfinished(unfinished, [*entries, *kept])
    for path in pending:
        path.unlink()


def _warn_of_standing_still(run: Run, data: Data) -> None:
    """Say so where the learning rate is 0 in every step of a command's runs, which are all as long as this one."""
    if not RULES[run.lr_rule](run.steps - 1, run.schedule_steps, steps_per_epoch(data.examples, run.batch)):
        typer.echo(
            f"the {run.steps} steps are within the first epoch, whose learning rate is 0 by the rule {run.lr_rule!r}: no weight will move. "
            "Pass more --epochs, or --lr-rule constant.",
            err=True,
        )


def find_runs(asked: Asked, data: Data, device: torch.device, place: Place, *, label: str) -> list[Run]:
    """The runs of a command; where a search is asked for, with the best settings that it found of each method and band.

    Raises:
        InvalidConfigError, DataError: as `make_runs` and `search`. LockedError, MeasurementError: as `search`.
        RecordError: a place cannot be read or written. typer.Exit: interrupted; finished trials are kept.
    """
    references = make_runs(asked, data)  # refuses what cannot be trained before the first trial
    for run in references:
        if run.framework == "jax":
            check_trains_in_jax(run, device.type)
    _warn_of_standing_still(references[0], data)
    if asked.search is None:
        return references
    wanted = variants(asked)
    searches: dict[tuple[str, int | None], Found] = {}
    with progress_bar() as drawn:
        shown = SearchProgress(drawn, len(wanted), asked.search)
        try:
            for variant, reference in zip(wanted, references, strict=False):  # the references of the first seed come first
                shown.begin(reference.label)
                found = search(asked, data, device, variant, place.folder, shown)
                _keep(found, search_entry(found, asked, data, device), place, label, device)
                searches[variant] = found
                shown.end(found)
        except KeyboardInterrupt:
            where = place.folder / UNFINISHED
            typer.echo(f"interrupted; trials that ended are kept in {where}: the same command goes on from there", err=True)
            raise typer.Exit(Exit.INTERRUPTED) from None
    runs = make_runs(asked, data, {variant: found.settings for variant, found in searches.items()})
    _hand_over(list(searches.values()), unfinished_path(place.folder, runs, data, device), place)
    return runs
