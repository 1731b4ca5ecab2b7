"""`run --target` and `compile`: what can be said of a GPU that need not be here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, Self

import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from sonew import paths
from sonew.errors import InvalidConfigError
from sonew.tuned import type_names
from sonew_autotune.commands.progress import REFRESH_PER_SECOND
from sonew_autotune.commands.render import config_text, document, make_console
from sonew_autotune.compiler import kernel as static
from sonew_autotune.compiler.cross import KERNEL, CompileRequest, Outcome, Ranked, StaticResult, check_target, tune_static
from sonew_autotune.compiler.resources import Resources
from sonew_autotune.problems import STATES, Case, cases_of, check_choice
from sonew_autotune.settings import Exit, Problems, Settings
from sonew_autotune.store.winners import prepare
from sonew_autotune.trials.outcome import Failure
from sonew_kernels.spec import SPECS, SUPPORTED_BANDS

SHOWN: Final = 5  # candidates per problem in the table; --json has all
RESOURCE_HEADINGS: Final = ("registers", "spill bytes (stored+loaded)", "shared bytes", "loads (bytes x times)", "stores", "occupancy")


class _CompileReport:
    """Tells how compiling goes: a bar on a terminal, a line per band and per failure everywhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(console=console, transient=True, refresh_per_second=REFRESH_PER_SECOND, disable=not console.is_terminal)
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.stop()

    def begin(self, case: Case, count: int) -> None:
        """A band's compilations start."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(f"band {case.band} {type_names(case.problem)}", total=count)
        self._say(f"band {case.band} {type_names(case.problem)}: compiling {count} kernels")

    def told(self, request: CompileRequest, outcome: Outcome) -> None:
        """One was compiled."""
        if self._task is not None:
            self._bar.advance(self._task)
        if isinstance(outcome, Failure):
            kernel, values = request.part
            self._say(f"  {kernel} {values}: {outcome.kind}: {outcome.message.splitlines()[0]}", style="yellow")

    def warn(self, line: str) -> None:
        """A line that stands out."""
        self._say(f"warning: {line}", style="bold red")

    def _say(self, line: str, style: str | None = None) -> None:
        self._console.print(line, style=style, markup=False, soft_wrap=True)


def _widths(widths: Mapping[int, int]) -> str:
    return " ".join(f"{width}x{times}" for width, times in widths.items()) or "-"


def _resource_cells(used: Resources) -> list[str]:
    spills = f"{used.spill_store_bytes + used.spill_load_bytes}"
    widths = (_widths(used.load_widths), _widths(used.store_widths))
    return [str(used.registers), spills, str(used.shared_bytes), *widths, f"{used.occupancy:.0%}"]


def _ranking_table(result: StaticResult, target: str) -> Table:
    """The best candidates of a problem beside the default, a row per kernel."""
    table = Table(
        title=f"{target}, band {result.case.band}, {type_names(result.case.problem)}: ranked by the static model", title_justify="left"
    )
    for heading in ("rank", "configuration", "model", "kernel", *RESOURCE_HEADINGS):
        table.add_column(heading)
    best = list(enumerate(result.ranked[:SHOWN], start=1))
    if result.default is not None and result.default not in result.ranked[:SHOWN]:
        best.append((result.ranked.index(result.default) + 1, result.default))
    for place, candidate in best:
        name = config_text(candidate.config) + (" (default)" if candidate == result.default else "")
        score = f"{candidate.score / result.default.score:.2f}" if result.default is not None else f"{candidate.score:.3g}"
        for index, (kernel, used) in enumerate(candidate.resources.items()):
            head = [str(place), name, score] if index == 0 else ["", "", ""]
            table.add_row(*head, kernel, *_resource_cells(used))
    return table


def _candidate_json(candidate: Ranked) -> dict[str, Any]:
    return {
        "config": candidate.config,
        "score": candidate.score,
        "resources": {kernel: asdict(used) for kernel, used in candidate.resources.items()},
    }


def _result_json(result: StaticResult) -> dict[str, Any]:
    return {
        "problem": asdict(result.case.problem),
        "case": result.case.name,
        "result": result.entry.evidence["result"] if result.entry is not None else "failed",
        "stored": result.entry.as_json() if result.entry is not None else None,
        "candidates": [_candidate_json(candidate) for candidate in result.ranked],
        "failures": [
            {"kernel": request.part[0], "config": dict(request.config), "kind": failure.kind, "message": failure.message}
            for request, failure in result.failures
        ],
        "left_out": result.left_out,
    }


def run_static(problems: Problems, target: str, settings: Settings, *, started: float, as_json: bool) -> Exit:
    """Compile every candidate for a target, rank, store as "static"."""
    console = make_console()
    shown = make_console(stderr=True) if as_json else console
    store_path = prepare(paths.store_path())
    cases = cases_of(problems, "cuda")
    check_target(target, cases[0].band)
    results: list[StaticResult] = []
    interrupted = False
    report = _CompileReport(shown)
    deadline = started + settings.budget_s
    ranking = tune_static(cases, target, store_path=store_path, deadline=deadline, told=report.told, warn=report.warn, begin=report.begin)
    try:
        with report:
            for result in ranking:
                results.append(result)  # noqa: PERF402  # one by one: Ctrl-C keeps what is there
    except KeyboardInterrupt:
        interrupted = True
    if as_json:
        typer.echo(document([_result_json(result) for result in results]))
    else:
        shown_methods = {
            (result.case.band, type_names(result.case.problem)): result for result in results
        }  # sizes share their compilations
        for result in shown_methods.values():
            console.print(_ranking_table(result, target))
            if result.entry is not None:
                console.print(f"{result.entry.evidence['result']}: {config_text(result.entry.config.as_dict())}", soft_wrap=True)
    for result in results:
        if result.left_out:
            report.warn(f"{result.case.title}: {result.left_out} kernels were not compiled, the budget ended; pass a larger --budget")
    if any(result.entry is not None for result in results):
        shown.print(f"Stored {sum(result.entry is not None for result in results)} static entries in {store_path}", soft_wrap=True)
        shown.print("A machine with this GPU uses them until `sonew-autotune run` has measured there.", soft_wrap=True)
    if interrupted:
        shown.print("Interrupted. Finished problems are stored; compiled kernels stay in Triton's cache.")
        return Exit.INTERRUPTED
    if any(result.entry is None and not result.left_out for result in results):
        return Exit.CHECK_FAILED
    return Exit.DONE if any(result.entry is not None for result in results) else Exit.NOT_JUDGED


def parse_config(pairs: Sequence[str], band: int) -> dict[str, int]:
    """The default configuration of a band with `name=value` pairs put over it.

    Raises:
        InvalidConfigError: a pair that is none, an unknown name, or a point outside the space.
    """
    config = SPECS[KERNEL].default(band)
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or name not in config or not value.isdecimal():
            msg = f"config={pair!r} is not name=integer with a name of {list(config)}. Pass for example --config block=256."
            raise InvalidConfigError(msg)
        config[name] = int(value)
    if reason := SPECS[KERNEL].rejects(config, band):
        msg = f"config {config_text(config)} is not allowed: {reason}. Pass other values of --config."
        raise InvalidConfigError(msg)
    return config


def compile_command(
    *,
    band: int,
    target: str,
    stage: str | None,
    kernel: str | None,
    pairs: Sequence[str],
    dtypes: tuple[str, str],
    entry: str,
    as_json: bool,
) -> Exit:
    """Compile, print a stage and the resource table; without a kernel all of them, and no stage.

    `dtypes`: of parameters and gradients, of state and direction.
    """
    check_choice("band", band, SUPPORTED_BANDS, "Pass for example --band 1.")
    dtype, state = dtypes
    check_choice("state", state, STATES, "Pass for example --state bfloat16.")
    types = static.Dtypes(dtype, dtype, state, state)
    backend, _, _ = static.parse_target(target)
    if stage is not None and stage not in static.STAGES[backend]:
        stages = static.STAGES[backend]
        msg = f"stage={stage!r} is not one of {list(stages)} for {target}. Pass for example --stage {stages[-1]}."
        raise InvalidConfigError(msg)
    config = parse_config(pairs, band)
    check_target(target, band)
    kernels = [kernel] if kernel is not None else (["direction"] if stage is not None else list(static.ENTRIES.get(entry, static.KERNELS)))
    built = [static.compile_kernel(name, config, band, target, dtypes=types, entry=entry) for name in kernels]
    if as_json:
        typer.echo(document([_compiled_json(compiled, config, stage) for compiled in built]))
        return Exit.DONE
    if stage is not None:
        typer.echo(built[0].stages[stage])
    table = Table(
        title=f"{target}, band {band}, {dtype}{f', {state} state' if state != dtype else ''}: {config_text(config)}", title_justify="left"
    )
    for heading in ("kernel", "threads", "instructions", *RESOURCE_HEADINGS):
        table.add_column(heading)
    for compiled in built:
        used = compiled.resources
        table.add_row(compiled.kernel, str(used.threads), str(used.instructions), *_resource_cells(used))
    make_console().print(table)
    return Exit.DONE


def _compiled_json(compiled: static.Compiled, config: Mapping[str, int], stage: str | None) -> dict[str, Any]:
    text = {"stage": stage, "text": compiled.stages[stage]} if stage is not None else {}
    head = {"kernel": compiled.kernel, "target": compiled.target, "band": compiled.band, "config": dict(config)}
    return {**head, "resources": asdict(compiled.resources), **text}
