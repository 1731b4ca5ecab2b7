"""`sonew-perf`: time a step and the host's part of it, train the autoencoder, do everything that a GPU allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sonew.dispatch import TUNING_MODES
from sonew.errors import SonewError
from sonew_autotune.device import DEVICES, NoDeviceError, find_device
from sonew_autotune.measure import REPORTED_ROUNDS
from sonew_autotune.problems import MODELS
from sonew_autotune.settings import Exit
from sonew_autotune.trials.outcome import Failure
from sonew_perf import host as host_time
from sonew_perf import report, runner, store, summary, training
from sonew_perf.cases import cases, whole_model
from sonew_perf.errors import DataError, MeasurementError
from sonew_perf.gpu import report as gpu_report
from sonew_perf.gpu.plan import STAGES, make_plan
from sonew_perf.gpu.run import BUDGET_S, GpuRun, Options, document, no_gpu, run_gpu
from sonew_perf.idx import find_train_images, read_images
from sonew_perf.jax import ask as jax_process
from sonew_perf.jax import report as jax_report
from sonew_perf.jax.request import ADAMW, XLA, JaxTiming, Method
from sonew_perf.machine import describe, headline
from sonew_perf.workloads import one_tensor

EPILOG: Final = (
    "Exit codes: 0 done, 1 the correctness ladder failed (gpu), 2 wrong use or broken input, 3 could not judge (no device, no result, or a "
    "method's optimum is missing or at the edge of the grid), 130 interrupted (finished runs are kept in --output)."
)
BANDS: Final = [1, 4]
JAX_TIMEOUT_S: Final = 1800.0  # XLA takes minutes to compile a step over a large model's leaves
JAX_BANDS: Final = [0, 1, 4]
TUNINGS: Final = ["on"]
RATES: Final = [4e-4, 1.2e-3, 3.6e-3, 1.08e-2, 3.24e-2]  # factor 3; an optimum at either end is not judged
TRAINED_BANDS: Final = [1]
METHODS: Final = list(training.METHODS)
DEFAULT_METHODS: Final = ["sonew", training.BASELINE]

app = typer.Typer(help="Measure SONew's step beside its peers, and what training with it gains.", epilog=EPILOG, no_args_is_help=True)


def main() -> None:
    """Run the command line."""
    app()


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Errors that name their fix, and Ctrl-C, become one line and an exit code."""
    try:
        yield
    except SonewError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(Exit.NOT_JUDGED if isinstance(error, NoDeviceError | MeasurementError) else Exit.WRONG_USE) from error
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(Exit.INTERRUPTED) from None


def _among(allowed: Sequence[str]) -> Callable[[object], object]:
    """A check for an option's value or values; the message names the value and the allowed set."""

    def check(value: object) -> object:
        for name in value if isinstance(value, list) else [value]:
            if name is not None and name not in allowed:
                msg = f"{name!r} is not one of {list(allowed)}"
                raise typer.BadParameter(msg)
        return value

    return check


Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", callback=_among(DEVICES))]
Json = Annotated[bool, typer.Option("--json", help="Print the entries as JSON instead of tables.")]


def _find(device: str) -> torch.device:
    """The device to measure on; a GPU that is there but cannot be used is a loud line."""
    found = find_device(device)
    if found.warning is not None:
        Console(stderr=True).print(found.warning, style="bold red", markup=False)
    return torch.device(found.type)


def _print_lines(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command(epilog=EPILOG)
def run(
    *,
    size: Annotated[int, typer.Option(min=1, help="Elements of the one tensor.")] = 4 * 2**20,
    model: Annotated[
        str | None, typer.Option(help=f"Step this model's tensors instead: {', '.join(MODELS)}.", callback=_among(list(MODELS)))
    ] = None,
    band: Annotated[list[int], typer.Option(min=0, help="Bands of SONew; repeatable.")] = BANDS,
    tuning: Annotated[list[str], typer.Option(help="on, off or pinned; repeatable.", callback=_among(TUNING_MODES))] = TUNINGS,
    rounds: Annotated[int, typer.Option(min=REPORTED_ROUNDS, help="Interleaved rounds.")] = 9,
    reference: Annotated[bool, typer.Option(help="Time the plain reference too.")] = True,
    device: Device = "auto",
    as_json: Json = False,
    output: Annotated[Path | None, typer.Option(help="Write the entries to this file, replacing it.")] = None,
) -> None:
    """Time one optimizer step: SONew at each band, torch's AdamW fused and foreach, a copy, the plain reference."""
    with _exit_codes():
        where = _find(device)
        machine = describe(where)
        workload = one_tensor(size) if model is None else whole_model(model)
        with Console(stderr=True).status(f"timing {workload.name} in {rounds} interleaved rounds"):
            timed = cases(workload, where, list(dict.fromkeys(band)), list(dict.fromkeys(tuning)), reference=reference)
            entries = runner.measure(workload, timed, rounds=rounds, device=where, machine=machine)
        if output is not None:
            store.write_entries(output, entries)
    if as_json:
        typer.echo(store.document(entries), nl=False)
        return
    console = Console()
    console.print(report.speed_table(entries, headline(machine)))
    if (phases := report.phase_table(entries)) is not None:
        console.print(phases)
    _print_lines(console, report.plan_lines({entry["case"]: [entry] for entry in entries}))


@app.command(epilog=EPILOG)
def host(
    *,
    model: Annotated[str, typer.Option(help=f"Whose tensors: {', '.join(MODELS)}.", callback=_among(list(MODELS)))] = "gpt2-small",
    band: Annotated[int, typer.Option(min=0, help="Band of SONew.")] = 1,
    rounds: Annotated[int, typer.Option(min=REPORTED_ROUNDS, help="Interleaved rounds.")] = 51,
    as_json: Json = False,
    output: Annotated[Path | None, typer.Option(help="Write the entries to this file, replacing it.")] = None,
) -> None:
    """Time the host's part of a step beside torch's AdamW: as many tensors as the model has, of one element each, on the CPU.

    SONew's launches are left out and counted. Says whether the target is met; a missed target is no failure.
    """
    with _exit_codes():
        machine = describe(host_time.CPU)
        with Console(stderr=True).status(f"timing the host in {rounds} interleaved rounds"):
            entries = host_time.measure_host(whole_model(model), band=band, rounds=rounds, machine=machine)
        if output is not None:
            store.write_entries(output, entries)
    if as_json:
        typer.echo(store.document(entries), nl=False)
        _print_lines(Console(stderr=True), host_time.verdict_lines(entries))
        return
    console = Console()
    console.print(host_time.host_table(entries, headline(machine)))
    _print_lines(console, host_time.verdict_lines(entries))


@app.command(epilog=EPILOG)
def jax(
    *,
    size: Annotated[int, typer.Option(min=1, help="Elements of the one leaf.")] = 4 * 2**20,
    model: Annotated[
        str | None, typer.Option(help=f"Step this model's leaves instead: {', '.join(MODELS)}.", callback=_among(list(MODELS)))
    ] = None,
    band: Annotated[list[int], typer.Option(min=0, help="Bands of SONew; repeatable.")] = JAX_BANDS,
    rounds: Annotated[int, typer.Option(min=REPORTED_ROUNDS, help="Interleaved rounds.")] = 9,
    as_json: Json = False,
    output: Annotated[Path | None, typer.Option(help="Write the entries to this file, replacing it.")] = None,
) -> None:
    """Time one jitted, donated step of the JAX surface on this machine's CPU, by XLA, beside optax.adamw. The GPU: `sonew-perf gpu`."""
    methods = Method(family=ADAMW), *(Method(band=number, backend=XLA) for number in dict.fromkeys(band))
    with _exit_codes():
        workload = one_tensor(size) if model is None else whole_model(model)
        with Console(stderr=True).status(f"timing {workload.name} in {rounds} interleaved rounds"):
            result = jax_process.ask(JaxTiming(workload=workload, methods=methods, device="cpu", rounds=rounds), JAX_TIMEOUT_S)
        if isinstance(result, Failure):
            raise MeasurementError(result.message)
        entries = jax_report.entries_of(result)
        if output is not None:
            store.write_entries(output, entries)
    if as_json:
        typer.echo(store.document(entries), nl=False)
        return
    Console().print(jax_report.jax_table(result))


def _train_all(runs: Sequence[training.Run], data: Path, device: torch.device, output: Path | None) -> list[store.Entry]:
    """The entry of every run; with an output, new ones are in the file before the next run begins."""
    images = read_images(find_train_images(data))
    record = store.read_entries(output) if output is not None else []
    entries: list[store.Entry] = []
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("training", total=len(runs))
        results = training.train_all(runs, images, device, record)
        for run in runs:
            name = f"{run.label}, lr {run.lr:.4g}, seed {run.seed}"
            progress.update(task, description=name)
            entry, new = next(results)
            entries.append(entry)
            if new and output is not None:
                record.append(entry)
                store.write_entries(output, record)
            progress.advance(task)
            if not console.is_terminal:
                typer.echo(f"{len(entries)}/{len(runs)} {name}: loss {entry['loss']}{'' if new else ' (recorded)'}", err=True)
    return entries


def _print_training(
    runs: Sequence[training.Run], entries: Sequence[store.Entry], curves: Sequence[summary.Curve], comparisons: Sequence[summary.Comparison]
) -> None:
    last = min(training.LAST_STEPS, runs[0].steps)
    title = f"MNIST autoencoder, {runs[0].steps} steps of {runs[0].batch} images, {training.LR_RULE} lr: mean loss of the last {last} steps"
    by_label: dict[str, list[store.Entry]] = {}
    for run, entry in zip(runs, entries, strict=True):
        by_label.setdefault(run.label, []).append(entry)
    console = Console()
    console.print(report.grid_table(curves, title))
    console.print(report.method_table(curves, by_label, headline(entries[0]["machine"])))
    _print_lines(console, report.plan_lines(by_label))
    _print_lines(console, [report.comparison_line(comparison) for comparison in comparisons])


@app.command(epilog=EPILOG)
def train(
    *,
    data: Annotated[
        Path | None, typer.Option(envvar="SONEW_DATA", help="Folder with MNIST's train-images-idx3-ubyte, gzipped or not.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of a run.")] = 300,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ... per method and learning rate.")] = 3,
    lr: Annotated[list[float], typer.Option(min=0, help="Learning rates of the grid; repeatable.")] = RATES,
    band: Annotated[list[int], typer.Option(min=0, help="Bands of SONew; repeatable.")] = TRAINED_BANDS,
    method: Annotated[
        list[str], typer.Option(help="sonew, sonew-bf16-state or adamw; repeatable.", callback=_among(METHODS))
    ] = DEFAULT_METHODS,
    batch: Annotated[int, typer.Option(min=1, help="Images per step.")] = 1000,
    device: Device = "auto",
    as_json: Json = False,
    output: Annotated[Path | None, typer.Option(help="Record file: results are added as they come, and found there are reused.")] = None,
) -> None:
    """Train the MNIST autoencoder with each method over a grid of learning rates; compare the mean loss of the last 20 steps.

    The learning rate is constant. Weights and order of the images depend on the seed alone.
    """
    with _exit_codes():
        if data is None:
            msg = "no images: neither --data nor SONEW_DATA is set. Name the folder that holds MNIST's train-images-idx3-ubyte(.gz)."
            raise DataError(msg)
        where = _find(device)
        rates, bands, methods = sorted(set(lr)), list(dict.fromkeys(band)), list(dict.fromkeys(method))
        runs = training.grid(methods, bands, rates, range(seeds), steps=steps, batch=batch)
        try:
            entries = _train_all(runs, data, where, output)
        except KeyboardInterrupt:
            kept = (
                f"finished runs are in {output}: the same command goes on from there" if output else "pass --output to keep finished runs"
            )
            typer.echo(f"interrupted; {kept}", err=True)
            raise typer.Exit(Exit.INTERRUPTED) from None
    curves = summary.curves(runs, entries)
    comparisons = summary.comparisons(curves)
    if as_json:
        typer.echo(store.document(entries), nl=False)
        _print_lines(Console(stderr=True), [report.comparison_line(comparison) for comparison in comparisons])
    else:
        _print_training(runs, entries, curves, comparisons)
    if not all(comparison.judged for comparison in comparisons):
        raise typer.Exit(Exit.NOT_JUDGED)


def _print_gpu_run(done: GpuRun) -> None:
    console = Console()
    for entry in done.record["entries"]:
        if entry["result"].get("workload"):
            console.print(gpu_report.speed_table(entry["unit"], entry["result"]))
    console.print(gpu_report.target_table(done.rows, done.record["device"]["name"], done.warning))
    if not done.record["complete"]:
        _print_lines(console, ["Not everything is done: the same command goes on from here."])
    _print_lines(console, [f"Record: {done.path}"])


@app.command(epilog=EPILOG)
def gpu(
    *,
    plan: Annotated[bool, typer.Option("--plan", help="List what would be done, and stop.")] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"{', '.join(STAGES)}; repeatable.", callback=_among(STAGES))] = None,
    budget: Annotated[float, typer.Option(help="Seconds for this call; the next one goes on from there.")] = BUDGET_S,
    out: Annotated[Path | None, typer.Option(help="The record; default: beside the work file in the user's state folder.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what earlier calls finished.")] = False,
    as_json: Json = False,
) -> None:
    """On a machine with a GPU: check the kernels on it, tune every band, time everything beside its peers. Resumable.

    Without a usable GPU it says so in one line. Exit code 1: the correctness ladder failed; a missed target is no failure.
    """
    with _exit_codes():
        stages = tuple(stage for stage in STAGES if only is None or stage in only)
        options = Options(stages=stages, budget_s=budget, out=out, fresh=fresh)
        if plan:
            _print_plan(stages, budget, as_json=as_json)
            return
        if (reason := no_gpu()) is not None:
            typer.echo(f"No usable GPU, nothing is measured: {reason}", err=as_json)
            if as_json:
                typer.echo(store.document([]), nl=False)
            return
        try:
            done = run_gpu(options, say=lambda line: typer.echo(line, err=True))
        except KeyboardInterrupt:
            typer.echo("interrupted; finished units are kept: the same command goes on from there", err=True)
            raise typer.Exit(Exit.INTERRUPTED) from None
    if as_json:
        typer.echo(document(done.record), nl=False)
    else:
        _print_gpu_run(done)
    if done.ladder_failed:
        raise typer.Exit(Exit.CHECK_FAILED)


def _print_plan(stages: tuple[str, ...], budget: float, *, as_json: bool) -> None:
    units = make_plan(stages=stages)
    if as_json:
        entries = [{"unit": u.name, "stage": u.stage, "seconds": u.seconds, "elastic": u.elastic, "cases": list(u.cases)} for u in units]
        typer.echo(store.document(entries), nl=False)
        return
    console = Console()
    console.print(gpu_report.plan_table(units, budget))
    _print_lines(console, gpu_report.plan_lines(units))
