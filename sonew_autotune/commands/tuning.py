"""What the commands do, behind the command line: they load torch, which takes seconds, so `cli` imports them late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import typer

from sonew import paths
from sonew_autotune.commands.progress import ConsoleReport
from sonew_autotune.commands.render import document, make_console, result_json, results_table
from sonew_autotune.device import find_device
from sonew_autotune.problems import cases_of
from sonew_autotune.search.results import Result
from sonew_autotune.settings import Exit, Problems, Settings
from sonew_autotune.store.files import prepare_folder
from sonew_autotune.store.winners import prepare
from sonew_autotune.trials.trial import make_evaluator
from sonew_autotune.trials.worker import Worker

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


def run(problems: Problems, settings: Settings, *, started: float, as_json: bool) -> Exit:
    """`sonew-autotune run` on this machine's device."""
    from sonew_autotune.search.tuner import Run  # noqa: PLC0415  # loads Optuna, which the other commands do without

    console, messages = make_console(), make_console(stderr=True)
    shown = messages if as_json else console
    store_path = prepare(paths.store_path())
    studies = prepare_folder(
        paths.state_dir() / "studies",
        subject=f"the state folder {paths.state_dir()}",
        fix="Pass --state-dir FOLDER or set SONEW_STATE_DIR to a folder that can.",
    )
    device = find_device(problems.device)
    cases = cases_of(problems, device.type)
    worker, interrupted = Worker(make_evaluator), False
    report = ConsoleReport(shown, len(cases))
    tuning = Run(settings, store_path=store_path, studies=studies, answer=worker.answer, report=report, started=started)
    if device.warning is not None:
        report.warn(device.warning)
    shown.print(f"Tuning {len(cases)} problems on {device.type}, at most {settings.budget_s:.0f} s and {settings.trials} trials each.")
    try:
        with report:
            tuning.tune(cases)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        worker.close()
    if as_json:
        typer.echo(document([result_json(result) for result in report.results]))
    elif report.results:
        console.print(results_table(report.results))
    if noise := _noise(report.results):
        report.warn(noise)
    if interrupted:
        shown.print("Interrupted. Finished problems are stored and finished trials kept: the same command goes on from here.")
    if any(result.entry is not None for result in report.results):
        band = next(result.case.band for result in report.results if result.entry is not None)
        shown.print(f"Stored in {store_path}", soft_wrap=True)
        shown.print(f"Use it:  from sonew.torch import SONew; optimizer = SONew(model.parameters(), lr=1e-3, band={band})", soft_wrap=True)
    return _status(report.results, interrupted=interrupted)
