"""`doctor`: what stands in the way on this machine, and how to fix it."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import Final

import typer
from rich.text import Text

from sonew import paths
from sonew_autotune.commands.render import document, make_console
from sonew_autotune.commands.text import printable
from sonew_autotune.health.doctor import examine
from sonew_autotune.health.system import Line, StoredFacts, System, this_system
from sonew_autotune.settings import Exit

STYLES: Final = {"ok": "green", "note": "yellow", "problem": "bold red"}
LONGEST: Final = 1000  # characters of a line: a compiler's errors can be pages


@cache
def _stored() -> StoredFacts:
    """What the stores hold; late, because judging entries loads torch, which may be what is broken."""
    from sonew_autotune.commands.inspection import stored_entries  # noqa: PLC0415  # see above

    rows, problems = stored_entries(paths.store_path())
    return StoredFacts(entries=tuple((row.entry, row.reasons) for row in rows), problems=tuple(problems))


def _shown(check: str, line: Line) -> Text:
    fix = f"\n         fix: {printable(line.fix, longest=LONGEST)}" if line.fix else ""
    return Text.assemble((f"{line.level:<8} ", STYLES[line.level]), f"{check}: {printable(line.text, longest=LONGEST)}{fix}")


def doctor(*, as_json: bool, system: System | None = None) -> Exit:
    """`sonew-autotune doctor`. `system`: the machine, this one where None."""
    _stored.cache_clear()
    console, lines = make_console(), []
    for check, line in examine(this_system(_stored) if system is None else system):
        lines.append((check, line))
        if not as_json:
            console.print(_shown(check, line), soft_wrap=True)
    problems = sum(line.level == "problem" for _, line in lines)
    if as_json:
        typer.echo(document([{"check": check, **asdict(line)} for check, line in lines]))
    else:
        notes = sum(line.level == "note" for _, line in lines)
        console.print(f"{problems or 'No'} problem{'' if problems == 1 else 's'}, {notes} notes.")
    return Exit.CHECK_FAILED if problems else Exit.DONE
