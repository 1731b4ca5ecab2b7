"""`show` and `explain`."""

from __future__ import annotations

import typer

from sonew import dispatch, paths
from sonew_autotune.commands import inspection
from sonew_autotune.commands.render import document, entries_table, make_console
from sonew_autotune.device import find_device
from sonew_autotune.problems import cases_of
from sonew_autotune.settings import Exit, Problems


def show(*, as_json: bool) -> Exit:
    """`sonew-autotune show`."""
    rows, problems = inspection.stored_entries(paths.store_path())
    messages = make_console(stderr=True)
    for line in problems:
        messages.print(f"warning: {line}", style="bold red", markup=False, soft_wrap=True)
    if as_json:
        typer.echo(document(inspection.shown_json(rows)))
    elif rows:
        make_console().print(entries_table(rows))
    else:
        make_console().print(f"Nothing is stored in {paths.store_path()}: run sonew-autotune run.", soft_wrap=True)
    return Exit.WRONG_USE if problems else Exit.DONE


def explain(problems: Problems, *, backend: str, tuning: str, as_json: bool) -> Exit:
    """`sonew-autotune explain`; a device that is not here is explained as well."""
    device = problems.device if problems.device in ("cpu", "cuda") else find_device(problems.device).type
    explanations = [dispatch.explain(case.problem, backend=backend, tuning=tuning) for case in cases_of(problems, device)]
    if as_json:
        typer.echo(document([inspection.explanation_json(explanation) for explanation in explanations]))
    else:
        for explanation in explanations:
            typer.echo("\n".join(inspection.explanation_lines(explanation)) + "\n")
    return Exit.DONE
