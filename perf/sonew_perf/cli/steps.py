"""`sonew-perf run`, `host` and `jax`: what one step costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from sonew.dispatch import TUNING_MODES
from sonew_autotune.measure import REPORTED_ROUNDS
from sonew_autotune.problems import MODELS
from sonew_autotune.trials.outcome import Failure
from sonew_perf.cli.options import Device, Json, among, exit_codes, find, print_lines
from sonew_perf.errors import MeasurementError
from sonew_perf.jax import ask as jax_process
from sonew_perf.jax import report as jax_report
from sonew_perf.jax.request import ADAMW, XLA, JaxTiming, Method
from sonew_perf.machine import describe, headline
from sonew_perf.records import files
from sonew_perf.steps import host as host_time
from sonew_perf.steps import report, runner
from sonew_perf.steps.cases import cases, whole_model
from sonew_perf.steps.workloads import one_tensor
from sonew_perf.tables import plan_lines

BANDS: Final = [1, 4]
JAX_TIMEOUT_S: Final = 1800.0  # XLA takes minutes to compile a step over a large model's leaves
JAX_BANDS: Final = [0, 1, 4]
TUNINGS: Final = ["on"]


def run(
    *,
    size: Annotated[int, typer.Option(min=1, help="Elements of the one tensor.")] = 4 * 2**20,
    model: Annotated[
        str | None, typer.Option(help=f"Step this model's tensors instead: {', '.join(MODELS)}.", callback=among(list(MODELS)))
    ] = None,
    band: Annotated[list[int], typer.Option(min=0, help="Bands of SONew; repeatable.")] = BANDS,
    tuning: Annotated[list[str], typer.Option(help="on, off or pinned; repeatable.", callback=among(TUNING_MODES))] = TUNINGS,
    rounds: Annotated[int, typer.Option(min=REPORTED_ROUNDS, help="Interleaved rounds.")] = 9,
    reference: Annotated[bool, typer.Option(help="Time the plain reference too.")] = True,
    device: Device = "auto",
    as_json: Json = False,
    output: Annotated[Path | None, typer.Option(help="Write the entries to this file, replacing it.")] = None,
) -> None:
    """Time one optimizer step: SONew at each band, torch's AdamW fused and foreach, a copy, the plain reference."""
    with exit_codes():
        where = find(device)
        machine = describe(where)
        workload = one_tensor(size) if model is None else whole_model(model)
        with Console(stderr=True).status(f"timing {workload.name} in {rounds} interleaved rounds"):
            timed = cases(workload, where, list(dict.fromkeys(band)), list(dict.fromkeys(tuning)), reference=reference)
            entries = runner.measure(workload, timed, rounds=rounds, device=where, machine=machine)
        if output is not None:
            files.write_entries(output, entries)
    if as_json:
        typer.echo(files.document(entries), nl=False)
        return
    console = Console()
    console.print(report.speed_table(entries, headline(machine)))
    if (phases := report.phase_table(entries)) is not None:
        console.print(phases)
    print_lines(console, plan_lines({entry["case"]: [entry] for entry in entries}))


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
