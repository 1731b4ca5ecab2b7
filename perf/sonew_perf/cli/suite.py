"""What `sonew-perf run` does with its options: the groups of an effort, or one group, kept and printed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import typer
from rich.console import Console

from sonew.errors import InvalidConfigError
from sonew_autotune.commands.text import printable
from sonew_autotune.device import device_name, gpu_problem, gpus_seen
from sonew_autotune.settings import Exit
from sonew_autotune.store.files import prepare_folder
from sonew_autotune.trials.turns import lock_of, turns_on
from sonew_perf.cli.options import Output, find, print_lines
from sonew_perf.errors import RecordError
from sonew_perf.machine import describe, headline
from sonew_perf.records.files import OUTPUT_FIX, Entry, document
from sonew_perf.records.model import Run
from sonew_perf.records.reading import parse_record
from sonew_perf.records.runs import FIX, RUNS, record_text
from sonew_perf.steps import report as steps_report
from sonew_perf.steps.cases import Wanted
from sonew_perf.steps.workloads import Workload
from sonew_perf.suite import report
from sonew_perf.suite.budget import Budget
from sonew_perf.suite.estimates import LEAST_LIMIT_S, estimate_s
from sonew_perf.suite.groups import DEVICES, EFFORTS, Group, all_groups, select
from sonew_perf.suite.identity import describe_machine, new_run
from sonew_perf.suite.keeping import Place, keep
from sonew_perf.suite.one import measure_one
from sonew_perf.suite.progress import GroupProgress
from sonew_perf.suite.run import DONE, FAILED, SKIPPED, rounds_of, run_groups, why_not
from sonew_perf.suite.stored import Earlier, earlier_points, outcomes, stored_ratios
from sonew_perf.tables import plan_lines

NEXT: Final = "Next: sonew-perf dashboard shows it beside the runs before it."


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What of the suite is run: groups of an effort whose names match `only`, on "auto" (all there are), "cpu" or "cuda".

    With `once` only what no run of the same sources on this machine has measured. Of `budget` seconds, what fits.
    """

    effort: str
    only: tuple[str, ...] = ()
    device: str = "auto"
    rounds: int | None = None
    once: bool = False
    budget: float | None = None

    def rounds_of(self, group: Group) -> int:
        """Rounds of a group."""
        return rounds_of(group, self.effort, self.rounds)

    def budget_from(self, began: float) -> Budget:
        """The budget of a run that began at a `time.monotonic()`."""
        return Budget(began=began) if self.budget is None else Budget(seconds=self.budget, began=began)


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
        print_lines(Output(), report.list_lines(entries))


def _end(entries: Sequence[Entry], ended: BaseException | None = None) -> None:
    """Exit as the results say, or as what ended the run early."""
    if isinstance(ended, KeyboardInterrupt):
        raise typer.Exit(Exit.INTERRUPTED)
    if ended is not None:
        raise ended
    if any(entry.get("status", DONE) == FAILED for entry in entries):
        raise typer.Exit(Exit.CHECK_FAILED)


def _ready(run: Run, place: Place) -> None:
    """Make sure that the run can be kept, before anything is measured.

    Raises:
        RecordError: no record can say what this run is. InvalidConfigError: a place cannot be written.
    """
    try:
        parse_record(record_text(run, []).encode(), stem=run.id, path="", origin="store")
    except RecordError as error:
        msg = f"no record can say what is run: {error}. Shorten the command line: --only takes patterns, as 'step/*'."
        raise RecordError(msg) from error
    if place.output is not None:
        if place.output.is_dir():
            msg = f"{place.output} is a folder. {OUTPUT_FIX}"
            raise InvalidConfigError(msg)
        prepare_folder(place.output.parent, subject=str(place.output), fix=OUTPUT_FIX)
    if place.stores:
        prepare_folder(place.folder / RUNS, subject=str(place.folder), fix=FIX)


def _keep_and_show(run: Run, entries: Sequence[Entry], place: Place, show: Callable[[], None], console: Console) -> None:
    """Write the run, then show it, so that whoever stops reading loses nothing; what cannot be written is shown all the same.

    Raises:
        RecordError: a place cannot be written.
    """
    try:
        paths = keep(run, entries, place) if entries else []
    finally:
        show()
    lines = [f"Written to {path}" for path in paths] + ([NEXT] if entries and place.stores else [])
    print_lines(console, [printable(line) for line in lines])


def _not_yet(groups: Sequence[Group], run: Run, folder: Path, unusable: Mapping[str, str], console: Console) -> list[Group]:
    """The groups that have no result from these sources. A failure is one; a skip is one while the group cannot run."""
    before = outcomes(folder, run)
    known = [group for group in groups if (said := before.get(group.name)) and (said != {SKIPPED} or why_not(group, unusable) is not None)]
    for group in known:
        if FAILED in before[group.name]:
            effort = "" if group.effort == EFFORTS[0] else f" --effort {group.effort}"
            line = f"{group.name}: something failed with these sources before. Again: sonew-perf run{effort} --only {group.name}"
            print_lines(console, [line])
    if len(known) == len(groups):
        print_lines(console, ["These sources are measured already: nothing is done. Leave out --once to measure them again."])
    return [group for group in groups if group not in known]


def _measure(choice: Choice, groups: Sequence[Group], found: Found, began: float) -> tuple[list[list[Entry]], BaseException | None]:
    """The entries of every group that was done, and what ended the run early: whatever it is, what was done before stays."""
    done: list[list[Entry]] = []
    try:
        with GroupProgress(Output(stderr=True), groups, lambda group: estimate_s(group, choice.rounds_of(group))) as told:
            budget = choice.budget_from(began)
            for entries in run_groups(groups, choice.rounds_of, told=told, unusable=found.unusable, budget=budget):
                done.append(entries)  # noqa: PERF402  # what is there before the end stays
    except BaseException as error:  # noqa: BLE001  # raised again when the run is kept
        return done, error
    return done, None


def _show_suite(run: Run, groups: Sequence[Group], done: Sequence[list[Entry]], earlier: Earlier) -> None:
    out, every = Output(), [entry for entries in done for entry in entries]
    stored = iter(stored_ratios(run, every, earlier))
    problem = [earlier.problem] if earlier.problem else []
    print_lines(out, [f"{run.machine.name}, load average before the run {run.load}", *problem, ""])
    for group, entries in zip(groups, done, strict=False):
        out.print(report.group_table(group, entries, [next(stored) for _ in entries]))
    print_lines(out, [report.NOTES])


def run_suite(choice: Choice, place: Place, *, label: str, as_json: bool) -> None:
    """Run groups and keep what came out, even if Ctrl-C ends it early.

    Raises:
        InvalidConfigError: a pattern that matches no group, or a place that cannot be written. NoDeviceError: the device cannot be used.
        RecordError: the run cannot be written. typer.Exit: something failed or was interrupted.
    """
    began, found, errors = time.monotonic(), _devices(choice), Output(stderr=True)
    groups = _groups(choice, found)
    run = new_run(describe_machine(found.main), arguments=sys.argv[1:], label=label)
    if choice.once:
        groups = _not_yet(groups, run, place.folder, found.unusable, errors)
        if not groups:
            return
    _ready(run, place)
    earlier = Earlier() if as_json else earlier_points(place.folder)
    done, ended = _measure(choice, groups, found, began)
    run = replace(run, seconds=round(time.monotonic() - began, 1))
    every = [entry for entries in done for entry in entries]
    told = errors if as_json else Output()

    def show() -> None:
        if as_json:
            typer.echo(record_text(run, every, named=place.output is None), nl=False)
        else:
            _show_suite(run, groups, done, earlier)
        if ended is not None:
            print_lines(errors, [f"interrupted after {len(done)} of {len(groups)} groups"])
        print_lines(told, [printable(line) for line in report.summary_lines(every)])

    _keep_and_show(run, every, place, show, told)
    _end(every, ended)


def _show_one(entries: Sequence[Entry], title: str) -> None:
    out, timed = Output(), [entry for entry in entries if entry.get("status", DONE) == DONE]
    if timed:
        out.print(steps_report.speed_table(timed, title))
    if (phases := steps_report.phase_table(timed)) is not None:
        out.print(phases)
    print_lines(out, plan_lines({entry["case"]: [entry] for entry in timed}))
    failed = [f"{entry['case']}: failed ({entry['reason']})" for entry in entries if entry not in timed]
    print_lines(out, [printable(line) for line in failed])


def run_one(workload: Workload, wanted: Sequence[Wanted], device: str, *, rounds: int, place: Place, label: str, as_json: bool) -> None:
    """Time one group over a workload in its turn on the device, and keep and print it.

    Raises:
        NoDeviceError: the device cannot be used. DeviceBusyError: another process times on it.
        InvalidConfigError: a case that nobody can step, or a place that cannot be written.
        RecordError: the run cannot be written. typer.Exit: something failed.
    """
    where, errors = find(device), Output(stderr=True)
    run, began = new_run(describe_machine(where.type), arguments=sys.argv[1:], label=label), time.monotonic()
    _ready(run, place)
    with (
        errors.status(f"timing {workload.name} in {rounds} interleaved rounds"),
        turns_on(lock_of(device_name(where.type)))(began + LEAST_LIMIT_S),
    ):
        entries = measure_one(workload, wanted, where, rounds=rounds)
    run = replace(run, seconds=round(time.monotonic() - began, 1))

    def show() -> None:
        if as_json:
            typer.echo(record_text(run, entries, named=place.output is None), nl=False)
        else:
            _show_one(entries, headline(describe(where)))

    _keep_and_show(run, entries, place, show, errors)
    _end(entries)
