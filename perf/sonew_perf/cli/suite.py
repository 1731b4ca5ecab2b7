"""What `sonew-perf run` does with its options: the groups of an effort, or one group, kept and printed."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import typer
from rich.console import Console

from sonew_autotune.commands.text import printable
from sonew_autotune.device import gpu_problem, gpus_seen
from sonew_autotune.settings import Exit
from sonew_perf.cli.options import find, print_lines
from sonew_perf.machine import describe, headline
from sonew_perf.records.files import Entry, document
from sonew_perf.records.model import Run
from sonew_perf.steps import report as steps_report
from sonew_perf.steps.cases import Wanted
from sonew_perf.steps.workloads import Workload
from sonew_perf.suite import report
from sonew_perf.suite.estimates import estimate_s
from sonew_perf.suite.groups import DEVICES, Group, all_groups, select
from sonew_perf.suite.identity import describe_machine, new_run
from sonew_perf.suite.keeping import Place, keep, record_text
from sonew_perf.suite.one import measure_one
from sonew_perf.suite.progress import GroupProgress
from sonew_perf.suite.run import DONE, FAILED, rounds_of, run_groups
from sonew_perf.suite.stored import last_points, measured_groups, stored_ratios
from sonew_perf.tables import plan_lines

NEXT: Final = "Next: sonew-perf dashboard shows it beside the runs before it."


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What of the suite is run: groups of an effort whose names match `only`, on "auto" (all there are), "cpu" or "cuda".

    With `once` only what no run of the same sources on this machine has measured.
    """

    effort: str
    only: tuple[str, ...] = ()
    device: str = "auto"
    rounds: int | None = None
    once: bool = False

    def rounds_of(self, group: Group) -> int:
        """Rounds of a group."""
        return rounds_of(group, self.effort, self.rounds)


@dataclass(frozen=True, slots=True)
class Found:
    """Devices to measure on; those of them that cannot be used, with the reason; and the one that the run is about."""

    devices: tuple[str, ...]
    unusable: dict[str, str]
    main: str


def _devices(choice: Choice) -> Found:
    """A GPU that is absent is left out, unless one was seen or its groups are asked for: then they are skipped with the reason."""
    where = find(choice.device).type
    if choice.device != "auto":
        return Found((where,), {}, where)
    if where == "cuda":
        return Found(DEVICES, {}, where)
    if gpus_seen() or any("cuda" in pattern for pattern in choice.only):
        return Found(DEVICES, {"cuda": gpu_problem() or "it cannot be used"}, where)
    return Found(("cpu",), {}, where)


def _groups(choice: Choice, found: Found) -> list[Group]:
    return select(all_groups(), effort=choice.effort, devices=found.devices, only=choice.only)


def list_suite(choice: Choice, *, as_json: bool) -> None:
    """Print the groups of a choice with cases and estimated seconds.

    Raises:
        InvalidConfigError: a pattern that matches no group. NoDeviceError: the device cannot be used.
    """
    entries = report.list_entries(_groups(choice, _devices(choice)), choice.rounds_of)
    if as_json:
        typer.echo(document(entries), nl=False)
    else:
        print_lines(Console(), report.list_lines(entries))


def _end(entries: Sequence[Entry], *, interrupted: bool = False) -> None:
    """Exit as the results say."""
    if interrupted:
        raise typer.Exit(Exit.INTERRUPTED)
    if any(entry.get("status", DONE) == FAILED for entry in entries):
        raise typer.Exit(Exit.CHECK_FAILED)


def _kept(run: Run, entries: Sequence[Entry], place: Place, console: Console) -> None:
    """Write the run and say where it is."""
    paths: list[Path] = keep(run, entries, place)
    lines = [f"Written to {path}" for path in paths] + ([NEXT] if place.stores else [])
    print_lines(console, [printable(line) for line in lines])


def run_suite(choice: Choice, place: Place, *, label: str, as_json: bool) -> None:
    """Run groups and keep what came out, even if Ctrl-C ends it early.

    Raises:
        InvalidConfigError: a pattern that matches no group. NoDeviceError: the device cannot be used.
        RecordError: the run cannot be written. typer.Exit: something failed or was interrupted.
    """
    found, errors, out = _devices(choice), Console(stderr=True), Console()
    groups = _groups(choice, found)
    run, began = new_run(describe_machine(found.main), arguments=sys.argv[1:], label=label), time.monotonic()
    if choice.once:
        known = measured_groups(place.folder, run)
        groups = [group for group in groups if group.name not in known]
        if not groups:
            print_lines(errors, ["These sources are measured already: nothing is done. Leave out --once to measure them again."])
            return
    last, problem = last_points(place.folder)
    done: list[list[Entry]] = []
    interrupted = False
    with GroupProgress(errors, groups, lambda group: estimate_s(group, choice.rounds_of(group))) as told:
        try:
            for entries in run_groups(groups, choice.rounds_of, told=told, unusable=found.unusable):
                done.append(entries)  # noqa: PERF402  # what is there before Ctrl-C stays
        except KeyboardInterrupt:
            interrupted = True
    run = replace(run, seconds=round(time.monotonic() - began, 1))
    every = [entry for entries in done for entry in entries]
    if as_json:
        typer.echo(record_text(run, every, named=place.output is None), nl=False)
    else:
        stored = iter(stored_ratios(run, every, last))
        print_lines(out, [f"{run.machine.name}, load average before the run {run.load}", *([problem] if problem else []), ""])
        for group, entries in zip(groups, done, strict=False):
            out.print(report.group_table(group, entries, [next(stored) for _ in entries]))
        print_lines(out, [report.NOTES])
    if interrupted:
        print_lines(errors, [f"interrupted after {len(done)} of {len(groups)} groups"])
    print_lines(errors if as_json else out, [printable(line) for line in report.summary_lines(every)])
    if every:
        _kept(run, every, place, errors if as_json else out)
    _end(every, interrupted=interrupted)


def run_one(workload: Workload, wanted: Sequence[Wanted], device: str, *, rounds: int, place: Place, label: str, as_json: bool) -> None:
    """Time one group over a workload, and keep and print it.

    Raises:
        NoDeviceError: the device cannot be used. InvalidConfigError: a case that nobody can step.
        RecordError: the run cannot be written. typer.Exit: something failed.
    """
    where, errors, out = find(device), Console(stderr=True), Console()
    run, began = new_run(describe_machine(where.type), arguments=sys.argv[1:], label=label), time.monotonic()
    with errors.status(f"timing {workload.name} in {rounds} interleaved rounds"):
        entries = measure_one(workload, wanted, where, rounds=rounds)
    run = replace(run, seconds=round(time.monotonic() - began, 1))
    if as_json:
        typer.echo(record_text(run, entries, named=place.output is None), nl=False)
    else:
        timed = [entry for entry in entries if entry.get("status", DONE) == DONE]
        if timed:
            out.print(steps_report.speed_table(timed, headline(describe(where))))
        if (phases := steps_report.phase_table(timed)) is not None:
            out.print(phases)
        print_lines(out, plan_lines({entry["case"]: [entry] for entry in timed}))
        failed = [f"{entry['case']}: failed ({entry['reason']})" for entry in entries if entry not in timed]
        print_lines(out, [printable(line) for line in failed])
    _kept(run, entries, place, errors)
    _end(entries)
