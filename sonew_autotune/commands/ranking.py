"""`run --target`: candidates for a GPU that need not be here, compiled, pruned and ranked by the static model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import typer
from rich.console import Console
from rich.table import Table

from sonew import paths
from sonew.tuned import type_names
from sonew_autotune.commands.compile_progress import CompileReport
from sonew_autotune.commands.render import config_text, document, make_console
from sonew_autotune.commands.resource_cells import mix_text, resource_cells
from sonew_autotune.compiler.candidates import Part, Ranked, StaticResult, dtypes_of, part_of
from sonew_autotune.compiler.cross import Compilers, check_target, tune_static
from sonew_autotune.compiler.model import RANKED, asked_bytes, fewest_bytes
from sonew_autotune.compiler.targets import architecture
from sonew_autotune.problems import cases_of
from sonew_autotune.settings import Exit, Problems, Settings
from sonew_autotune.store.winners import prepare

SHOWN: Final = 5  # candidates per problem in the table; --json has all
HEADINGS: Final = (
    *("rank", "configuration", "model", "kernel", "registers", "spill bytes", "shared bytes", "occupancy"),
    *("bytes per element, asked (fewest)", "instructions"),
)


def _rows(result: StaticResult) -> list[tuple[int, Ranked]]:
    """(place, candidate) of what is shown: the best with different direction kernels, and the default."""
    best: dict[Part, tuple[int, Ranked]] = {}
    for place, candidate in enumerate(result.ranked, start=1):
        best.setdefault(part_of("direction", candidate.config), (place, candidate))
    shown = list(best.values())[:SHOWN]
    if result.default is not None and all(candidate != result.default for _, candidate in shown):
        shown.append((result.ranked.index(result.default) + 1, result.default))
    return shown


def _ranking_table(result: StaticResult, target: str) -> Table:
    """The best candidates of a problem beside the default, a row per kernel."""
    case, chip = result.case, architecture(target).chip
    table = Table(
        title=f"{target} ({chip}), band {case.band}, {type_names(case.problem)}: ranked by the static model", title_justify="left"
    )
    for heading in HEADINGS:
        table.add_column(heading)
    for place, candidate in _rows(result):
        name = config_text(candidate.config) + (" (default)" if candidate == result.default else "")
        score = f"{candidate.score / result.default.score:.2f}" if result.default is not None else f"{candidate.score:.3g}"
        for index, (kernel, used) in enumerate(candidate.resources.items()):
            head = [str(place), name, score] if index == 0 else ["", "", ""]
            asked = asked_bytes(kernel, used, candidate.config, case.band, dtypes_of(case))
            traffic = f"{asked:.0f} ({fewest_bytes(kernel, case.band, dtypes_of(case))})"
            registers, spills, shared, *_, occupancy = resource_cells(used)
            table.add_row(*head, kernel, registers, spills, shared, occupancy, traffic, mix_text(used.mix))
    return table


def _pruned_table(result: StaticResult) -> Table:
    table = Table(title="Ruled out", title_justify="left")
    for heading in ("kernel", "configuration", "reason"):
        table.add_column(heading)
    for pruned in result.pruned:
        table.add_row(pruned.kernel, config_text(pruned.config), pruned.reason)
    return table


def _result_json(result: StaticResult) -> dict[str, Any]:
    return {
        "problem": asdict(result.case.problem),
        "case": result.case.name,
        "result": result.entry.evidence["result"] if result.entry is not None else "failed",
        "stored": result.entry.as_json() if result.entry is not None else None,
        "candidates": [asdict(candidate) for candidate in result.ranked],
        "pruned": [asdict(pruned) for pruned in result.pruned],
        "failures": [
            {"kernel": kernel, "config": dict(zip(RANKED[kernel], values, strict=True)), **asdict(failure)}
            for (kernel, values), failure in result.failures
        ],
        "left_out": result.left_out,
    }


def _show(results: Sequence[StaticResult], target: str, console: Console) -> None:
    by_method = {(result.case.band, dtypes_of(result.case)): result for result in results}  # sizes share what is compiled
    for result in by_method.values():
        console.print(_ranking_table(result, target))
        if result.pruned:
            console.print(_pruned_table(result))
        if result.entry is not None:
            console.print(f"{result.entry.evidence['result']}: {config_text(result.entry.config.as_dict())}", soft_wrap=True)


def _left_out(results: Sequence[StaticResult]) -> dict[str, int]:
    """How many kernels of each method were not compiled in the end."""
    found = {f"band {result.case.band} {type_names(result.case.problem)}": result.left_out for result in results}
    return {method: count for method, count in found.items() if count}


def run_static(problems: Problems, target: str, settings: Settings, *, started: float, as_json: bool) -> Exit:
    """Compile every candidate for a target, rank, store as "static"."""
    console = make_console()
    shown = make_console(stderr=True) if as_json else console
    store_path = prepare(paths.store_path())
    cases = cases_of(problems, "cuda")
    check_target(target, cases[0].band)
    results: list[StaticResult] = []
    interrupted = False
    report = CompileReport(shown)
    try:
        with report, Compilers() as compilers:
            deadline = started + settings.budget_s
            for result in tune_static(cases, target, compilers, store_path=store_path, deadline=deadline, report=report):
                results.append(result)  # noqa: PERF402  # one by one: Ctrl-C keeps what is there
    except KeyboardInterrupt:
        interrupted = True
    if as_json:
        typer.echo(document([_result_json(result) for result in results]))
    else:
        _show(results, target, console)
    for method, left in _left_out(results).items():
        report.warn(f"{method}: {left} kernels were not compiled, the farthest from the default; pass a larger --budget")
    stored = sum(result.entry is not None for result in results)
    if stored:
        shown.print(f"Stored {stored} static entries in {store_path}", soft_wrap=True)
        shown.print("A machine with this GPU uses them until `sonew-autotune run` has measured there.", soft_wrap=True)
    if interrupted:
        shown.print("Interrupted. Finished problems are stored; compiled kernels stay in Triton's cache.")
        return Exit.INTERRUPTED
    if any(result.entry is None and not result.left_out for result in results):
        return Exit.CHECK_FAILED
    return Exit.DONE if stored else Exit.NOT_JUDGED
