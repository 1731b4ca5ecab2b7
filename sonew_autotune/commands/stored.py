"""`show`, `explain` and `check`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import typer

from sonew import dispatch, paths
from sonew_autotune.commands import inspection
from sonew_autotune.commands.listing import Filter, choose, details_lines, entries_table, find_named
from sonew_autotune.commands.render import document, make_console
from sonew_autotune.commands.text import printable
from sonew_autotune.device import find_device
from sonew_autotune.problems import cases_of
from sonew_autotune.settings import Exit, Problems
from sonew_autotune.store.audit import Finding
from sonew_autotune.store.winners import short_name

STYLES: Final = {"ok": "green", "wrong": "bold red", "unreadable": "bold red"}


def warn_of(problems: Sequence[str]) -> None:
    """Lines about stores that could not be read, on stderr."""
    messages = make_console(stderr=True)
    for line in problems:
        messages.print(f"warning: {printable(line)}", style="bold red", markup=False, soft_wrap=True)


def show(wanted: Filter, *, sort: str | None, details: str | None, as_json: bool) -> Exit:
    """`sonew-autotune show`."""
    rows, problems = inspection.stored_entries(paths.store_path())
    chosen = choose(rows, wanted, sort)
    warn_of(problems)
    if details is not None:
        chosen = find_named(chosen, details)
    if as_json:
        typer.echo(document([row.as_json() for row in chosen]))
    elif details is not None:
        typer.echo("\n\n".join("\n".join(details_lines(row)) for row in chosen))
    elif chosen:
        make_console().print(entries_table(chosen))
    elif rows:
        make_console().print(f"None of the {len(rows)} stored entries fits: pass fewer filters.", soft_wrap=True)
    else:
        make_console().print(f"Nothing is stored in {paths.store_path()}: run sonew-autotune run.", markup=False, soft_wrap=True)
    return Exit.WRONG_USE if problems else Exit.DONE


def explain(problems: Problems, *, backend: str, tuning: str, as_json: bool) -> Exit:
    """`sonew-autotune explain`; a device that is not here is explained as well."""
    device = problems.device if problems.device in ("cpu", "cuda") else find_device(problems.device).type
    explanations = [dispatch.explain(case.problem, backend=backend, tuning=tuning) for case in cases_of(problems, device)]
    if as_json:
        typer.echo(document([inspection.explanation_json(explanation, tuning) for explanation in explanations]))
    else:
        for explanation in explanations:
            typer.echo("\n".join(inspection.explanation_lines(explanation, tuning)) + "\n")
    return Exit.DONE


def _finding_json(finding: Finding) -> dict[str, Any]:
    entry = finding.entry
    return {
        "store": finding.store,
        "path": str(finding.path),
        "index": finding.index,
        "name": short_name(entry) if entry is not None else None,
        "status": finding.status,
        "problems": list(finding.problems),
        "notes": list(finding.notes),
        "kind": entry.kind if entry is not None else None,
        "key": asdict(entry.key) if entry is not None else None,
    }


def _title(finding: Finding) -> str:
    if finding.index is None:
        return f"{finding.store} {finding.path}"
    entry = finding.entry
    what = f" {short_name(entry)} (band {entry.key.band}, {entry.key.capability} {entry.key.device})" if entry is not None else ""
    return f"  entry {finding.index}{what}"


def check(*, as_json: bool) -> Exit:
    """`sonew-autotune check`."""
    findings = inspection.audit(paths.store_path())
    if as_json:
        typer.echo(document([_finding_json(finding) for finding in findings]))
    else:
        console = make_console()
        for finding in findings:
            text = printable(f"{_title(finding)}: {finding.status}", longest=400)
            console.print(text, style=STYLES[finding.status], markup=False, soft_wrap=True)
            for line in (*finding.problems, *(f"note: {note}" for note in finding.notes)):
                console.print(f"    {printable(line, longest=1000)}", markup=False, soft_wrap=True)
        entries = [finding for finding in findings if finding.index is not None]
        wrong = sum(finding.status == "wrong" for finding in entries)
        console.print(f"{len(entries)} entries, {len(entries) - wrong} sound, {wrong} wrong.")
    statuses = {finding.status for finding in findings}
    if "unreadable" in statuses:
        return Exit.WRONG_USE
    return Exit.CHECK_FAILED if "wrong" in statuses else Exit.DONE
