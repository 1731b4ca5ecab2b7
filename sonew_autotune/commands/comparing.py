"""`compile --diff`: two ways to compile the same kernels, beside one another."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.table import Table

from sonew.errors import InvalidConfigError
from sonew_autotune.commands.compiling import check_stage, title
from sonew_autotune.commands.render import document, make_console
from sonew_autotune.compiler.cross import check_target
from sonew_autotune.compiler.difference import Difference, explain_difference, value_text
from sonew_autotune.compiler.kernel import Compiled
from sonew_autotune.compiler.stage_text import unified
from sonew_autotune.compiler.wanted import Wanted, compile_wanted, kernels_of, varied
from sonew_autotune.settings import Exit


def diff_command(wanted: Wanted, sides: tuple[str, str], *, stage: str | None, kernel: str | None, as_json: bool) -> Exit:
    """Compile both sides, say what differs per kernel; with a stage also its text's unified difference.

    Args:
        wanted: what both sides start from. sides: overrides of each (`wanted.varied`).
    """
    first, second = (varied(wanted, side) for side in sides)
    for side in (first, second):
        check_stage(stage, side.target, binary=False)
        _ = side.launch_config
    others = kernels_of(second, kernel)
    kernels = tuple(name for name in kernels_of(first, kernel) if name in others)
    if not kernels:
        msg = f"entries {first.entry!r} and {second.entry!r} share no kernel. Pass --kernel, or sides of the same entry."
        raise InvalidConfigError(msg)
    for target in dict.fromkeys((first.target, second.target)):
        check_target(target, first.band if target == first.target else second.band)
    one, other = compile_wanted(first, kernels), compile_wanted(second, kernels)
    found = [explain_difference(a, b) for a, b in zip(one, other, strict=True)]
    names = _name(first, one), _name(second, other)
    pairs = list(zip(one, other, strict=True))
    texts = [unified(a.stages[stage], b.stages[stage], stage, names) if stage is not None else "" for a, b in pairs]
    if as_json:
        sides_json = {"before": first.described() | _by(one), "after": second.described() | _by(other)}
        extra = [{"stage": stage, "diff": text} if stage else {} for text in texts]
        typer.echo(document([{**sides_json, **difference.as_json(), **more} for difference, more in zip(found, extra, strict=True)]))
        return Exit.DONE
    for text in filter(None, texts):
        typer.echo(text)
    console = make_console()
    console.print(f"A: {names[0]}", f"B: {names[1]}", sep="\n", markup=False, soft_wrap=True)
    for difference in found:
        if difference.identical:
            console.print(difference.lines()[0], soft_wrap=True)
        else:
            console.print(difference_table(difference))
    return Exit.DONE


def _by(built: list[Compiled]) -> dict[str, str]:
    return {"triton": built[0].binary.triton} if built[0].binary is not None else {}


def _name(side: Wanted, built: list[Compiled]) -> str:
    other = f", Triton {built[0].binary.triton} of {Path(side.triton)}" if side.triton and built[0].binary is not None else ""
    return f"{title(side)}{other}"


def difference_table(difference: Difference) -> Table:
    """What differs of a kernel, the most important first; what stayed is in --json."""
    table = Table(
        title=f"{difference.kernel}: {len(difference.changes)} differences, {len(difference.same)} the same", title_justify="left"
    )
    for heading in ("what", "A", "B", "what it means"):
        table.add_column(heading, overflow="fold")
    for change in difference.changes:
        table.add_row(change.name, value_text(change.before), value_text(change.after), change.meaning)
    return table
