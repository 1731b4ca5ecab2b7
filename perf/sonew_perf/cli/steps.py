"""`sonew-perf run`, `host` and `jax`: what one step costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from sonew.dispatch import TUNING_MODES
from sonew.errors import InvalidConfigError
from sonew_autotune.measure import REPORTED_ROUNDS
from sonew_autotune.problems import MODELS
from sonew_autotune.trials.outcome import Failure
from sonew_perf.cli import suite
from sonew_perf.cli.options import Device, Json, among, exit_codes, print_lines
from sonew_perf.errors import MeasurementError
from sonew_perf.jax import ask as jax_process
from sonew_perf.jax import report as jax_report
from sonew_perf.jax.request import ADAMW, XLA, JaxTiming, Method
from sonew_perf.machine import describe, headline
from sonew_perf.records import files
from sonew_perf.records.checks import LONGEST_NAME, shown
from sonew_perf.steps import host as host_time
from sonew_perf.steps.cases import wanted_cases, whole_model
from sonew_perf.steps.workloads import one_tensor
from sonew_perf.suite.groups import EFFORTS
from sonew_perf.suite.keeping import Place

ONE: Final = "One group only"  # how the help of an option begins that leaves the suite
SIZE: Final = 4 * 2**20
BANDS: Final = [1, 4]
ROUNDS: Final = 9
JAX_TIMEOUT_S: Final = 1800.0  # XLA takes minutes to compile a step over a large model's leaves
JAX_BANDS: Final = [0, 1, 4]
TUNINGS: Final = ["on"]


def _seconds(value: float | None) -> float | None:
    """A check for a number of seconds."""
    if value is not None and not value > 0:
        msg = f"{value:g} is no number of seconds above 0"
        raise typer.BadParameter(msg)
    return value


def _word(value: str) -> str:
    """A check for what a record says in a line of its own."""
    if len(value) > LONGEST_NAME or not value.isprintable():
        msg = f"{shown(value)} of {len(value)} characters is not allowed: at most {LONGEST_NAME}, all printable"
        raise typer.BadParameter(msg)
    return value


def run(
    *,
    effort: Annotated[
        str, typer.Option(help="quick (a minute), normal (a few) or full (everything, hours).", callback=among(EFFORTS))
    ] = EFFORTS[0],
    only: Annotated[list[str] | None, typer.Option(help="Groups of the effort whose names match, as 'step/*'; repeatable.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Only groups that these very sources were not measured in yet.")] = False,
    budget: Annotated[
        float | None,
        typer.Option(help="Seconds for the whole run: what does not fit is skipped; without it as long as it takes.", callback=_seconds),
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="Print groups, cases and estimated seconds; measure nothing.")] = False,
    size: Annotated[int | None, typer.Option(min=1, help=f"{ONE}: a tensor of so many elements.")] = None,
    model: Annotated[
        str | None, typer.Option(help=f"{ONE}: this model's tensors: {', '.join(MODELS)}.", callback=among(list(MODELS)))
    ] = None,
    band: Annotated[list[int] | None, typer.Option(min=0, help=f"{ONE}: bands of SONew; repeatable; 1 and 4 if left out.")] = None,
    tuning: Annotated[
        list[str] | None, typer.Option(help=f"{ONE}: on, off or pinned; repeatable; on if left out.", callback=among(TUNING_MODES))
    ] = None,
    reference: Annotated[
        bool | None, typer.Option("--reference/--no-reference", help=f"{ONE}: time the plain reference too, as if left out.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=REPORTED_ROUNDS, help="Interleaved rounds; 9 or more if left out.")] = None,
    device: Device = "auto",
    as_json: Json = False,
    output: Annotated[Path | None, typer.Option(help="Write the record to this file, replacing it, instead of the store.")] = None,
    store: Annotated[Path | None, typer.Option(help="Folder of runs; by default the user's, or SONEW_PERF_STORE.")] = None,
    no_store: Annotated[bool, typer.Option("--no-store", help="Print only.")] = False,
    label: Annotated[str, typer.Option(help="A word of your own for the run.", callback=_word)] = "",
) -> None:
    """Measure this machine: steps in torch and JAX beside AdamW and a copy, their phases, the host's part, imports, the tuner.

    Groups of cases take turns, each group in a process of its own. What is wrong is not timed; what fails or cannot run is a result. A
    group is skipped when --budget has less left than it is estimated to take, and stopped at its end, so that the run exceeds it by 10
    seconds at most. With --size, --model, --band, --tuning or --reference: one step over one workload (4 Mi elements), as a table.
    """
    with exit_codes():
        place = Place(output=output, store=store, no_store=no_store)
        named = {"--size": size, "--model": model, "--band": band, "--tuning": tuning, "--reference": reference}
        narrowed = [name for name, value in named.items() if value not in (None, [])]
        if not narrowed:
            chosen = suite.Choice(effort=effort, only=tuple(only or ()), device=device, rounds=rounds, once=once, budget=budget)
            if listing:
                suite.list_suite(chosen, as_json=as_json)
            else:
                suite.run_suite(chosen, place, label=label, as_json=as_json)
            return
        if only or once or listing or budget is not None or effort != EFFORTS[0]:
            msg = f"{narrowed[0]} asks for one group, and --effort, --only, --once, --budget and --list are for many. Leave out either."
            raise InvalidConfigError(msg)
        wanted = wanted_cases(list(dict.fromkeys(band or BANDS)), list(dict.fromkeys(tuning or TUNINGS)), reference=reference is not False)
        workload = whole_model(model) if model is not None else one_tensor(size or SIZE)
        suite.run_one(workload, wanted, device, rounds=rounds or ROUNDS, place=place, label=label, as_json=as_json)


def host(
    *,
    model: Annotated[str, typer.Option(help=f"Whose tensors: {', '.join(MODELS)}.", callback=among(list(MODELS)))] = "gpt2-small",
    band: Annotated[int, typer.Option(min=0, help="Band of SONew.")] = 1,
    rounds: Annotated[int, typer.Option(min=REPORTED_ROUNDS, help="Interleaved rounds.")] = 51,
    as_json: Json = False,
    output: Annotated[Path | None, typer.Option(help="Write the entries to this file, replacing it.")] = None,
) -> None:
    """Time the host's part of a step beside torch's AdamW: as many tensors as the model has, of one element each, on the CPU.

    SONew's launches are left out and counted. Says whether the target is met; a missed target is no failure.
    """
    with exit_codes():
        machine = describe(host_time.CPU)
        with Console(stderr=True).status(f"timing the host in {rounds} interleaved rounds"):
            entries = host_time.measure_host(whole_model(model), band=band, rounds=rounds, machine=machine)
        if output is not None:
            files.write_entries(output, entries)
    if as_json:
        typer.echo(files.document(entries), nl=False)
        print_lines(Console(stderr=True), host_time.verdict_lines(entries))
        return
    console = Console()
    console.print(host_time.host_table(entries, headline(machine)))
    print_lines(console, host_time.verdict_lines(entries))


def jax(
    *,
    size: Annotated[int, typer.Option(min=1, help="Elements of the one leaf.")] = 4 * 2**20,
    model: Annotated[
        str | None, typer.Option(help=f"Step this model's leaves instead: {', '.join(MODELS)}.", callback=among(list(MODELS)))
    ] = None,
    band: Annotated[list[int], typer.Option(min=0, help="Bands of SONew; repeatable.")] = JAX_BANDS,
    rounds: Annotated[int, typer.Option(min=REPORTED_ROUNDS, help="Interleaved rounds.")] = 9,
    as_json: Json = False,
    output: Annotated[Path | None, typer.Option(help="Write the entries to this file, replacing it.")] = None,
) -> None:
    """Time one jitted, donated step of the JAX surface on this machine's CPU, by XLA, beside optax.adamw. The GPU: `sonew-perf gpu`."""
    methods = Method(family=ADAMW), *(Method(band=number, backend=XLA) for number in dict.fromkeys(band))
    with exit_codes():
        workload = one_tensor(size) if model is None else whole_model(model)
        with Console(stderr=True).status(f"timing {workload.name} in {rounds} interleaved rounds"):
            result = jax_process.ask(JaxTiming(workload=workload, methods=methods, device="cpu", rounds=rounds), JAX_TIMEOUT_S)
        if isinstance(result, Failure):
            raise MeasurementError(result.message)
        entries = jax_report.entries_of(result)
        if output is not None:
            files.write_entries(output, entries)
    if as_json:
        typer.echo(files.document(entries), nl=False)
        return
    Console().print(jax_report.jax_table(result))
