"""What the commands do, behind the command line: they load torch, which takes seconds, so `cli` imports them late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import typer

from sonew import paths
from sonew.errors import SonewError
from sonew_autotune.commands.progress import ConsoleReport
from sonew_autotune.commands.render import document, make_console, result_json, results_table
from sonew_autotune.search.results import Result
from sonew_autotune.settings import Exit, Problems, Settings

WARNED_SPREAD: Final = 0.25  # of the median: the verdict still stands (`evidence.NOISY_SPREAD`), but a quieter run would see smaller gains


def _status(results: Sequence[Result], *, interrupted: bool) -> Exit:
    if interrupted:
        return Exit.INTERRUPTED
    if any(result.status == "failed" for result in results):
        return Exit.CHECK_FAILED
    return Exit.DONE if any(result.entry is not None for result in results) else Exit.NOT_JUDGED


def _noise(results: Sequence[Result]) -> str | None:
    """A line about a machine that was too busy for its numbers to be worth much."""
    measured = [result for result in results if result.entry is not None and result.status != "reused"]
    worst = max((float(result.entry.evidence["spread"]) for result in measured if result.entry is not None), default=0.0)
    if worst < WARNED_SPREAD:
        return None
    return f"Times spread by up to {worst:.0%} of their median: the machine was busy. Run again when it is quiet."


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a run's times come from and where what it finds goes, see `api.tune`; None: the defaults."""

    store: Path | None = None
    storage: str | None = None
    heartbeat_s: int | None = None
    record: Path | None = None
    replay: Path | None = None


DEFAULT_PLACES: Final = Places()


def run(problems: Problems, settings: Settings, *, places: Places = DEFAULT_PLACES, started: float, as_json: bool) -> Exit:
    """`sonew-autotune run` and `sonew-autotune worker` on this machine's device."""
    from sonew_autotune.api import tune  # noqa: PLC0415  # loads Optuna, which the other commands do without

    console, messages = make_console(), make_console(stderr=True)
    shown = messages if as_json else console
    report, interrupted = ConsoleReport(shown), False
    failed: Exception | None = None
    asked = {field.name: value for field in fields(places) if (value := getattr(places, field.name)) is not None}
    try:
        with report:
            tune(problems, settings=settings, report=report, started=started, **asked)
    except KeyboardInterrupt:
        interrupted = True
    except (SonewError, OSError) as error:  # a full disk, a storage that died: what was finished before is shown all the same
        failed = error
    if failed is not None and not report.results:
        raise failed
    if as_json:
        typer.echo(document([result_json(result) for result in report.results]))
    elif report.results:
        console.print(results_table(report.results))
    if noise := _noise(report.results):
        report.warn(noise)
    if interrupted:
        shown.print("Interrupted. Finished problems are stored and finished trials kept: the same command goes on from here.")
    if places.record is not None and places.record.exists() and any(result.status != "reused" for result in report.results):
        shown.print(f"Every trial's samples: {places.record}", soft_wrap=True)
    if places.replay is None and any(result.entry is not None for result in report.results):
        band = next(result.case.band for result in report.results if result.entry is not None)
        shown.print(f"Stored in {places.store or paths.store_path()}", soft_wrap=True)
        shown.print(f"Use it:  from sonew.torch import SONew; optimizer = SONew(model.parameters(), lr=1e-3, band={band})", soft_wrap=True)
    if failed is not None:
        raise failed
    return _status(report.results, interrupted=interrupted)
