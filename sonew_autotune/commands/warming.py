"""`warm`: the configurations that the dispatch layer would choose, compiled before the first training step asks for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from sonew import dispatch
from sonew.backends import native_build
from sonew.tuned import type_names
from sonew_autotune.commands.choices import CPU, TRITON, Variants, launches_of, launches_there, problems_here
from sonew_autotune.commands.progress import REFRESH_PER_SECOND
from sonew_autotune.commands.render import config_text, document, make_console
from sonew_autotune.commands.text import printable
from sonew_autotune.compiler.cross import check_target
from sonew_autotune.compiler.targets import parse_target
from sonew_autotune.compiler.warm import Warmed, cache_folder, warm
from sonew_autotune.device import find_device, select_device
from sonew_autotune.settings import Exit, Problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """The C++ library of a band: whether it was there, how long it took, why it is not built ("" where it is)."""

    band: int
    hit: bool
    seconds: float
    error: str = ""


def warm_library(band: int) -> Library:
    """Build the C++ library of a band, where it is not in the cache."""
    began = time.monotonic()
    try:
        hit = native_build.is_sound(native_build.library_path(band, native_build.find_compiler()))
        native_build.find_or_build(band)
    except native_build.NativeBuildError as error:
        return Library(band=band, hit=False, seconds=time.monotonic() - began, error=str(error).splitlines()[0])
    return Library(band=band, hit=hit, seconds=time.monotonic() - began)


Done = Warmed | Library


def warm_command(problems: Problems, variants: Variants, *, target: str | None, as_json: bool) -> Exit:
    """`sonew-autotune warm`; exit code 1 where something does not compile."""
    console = make_console(stderr=as_json)
    with Progress(console=console, transient=True, refresh_per_second=REFRESH_PER_SECOND, disable=not console.is_terminal) as bar:
        task = bar.add_task("compiling", total=None)

        def told(done: Done) -> None:
            bar.update(task, description=f"compiling: {_name(done)}, band {_band(done)}")

        done = _warm_here(problems, variants, console, told) if target is None else _warm_for(problems, variants, target, told)
    if as_json:
        typer.echo(document([_json(one, target) for one in done]))
    else:
        console.print(_table(done, target))
    _say_what_was_done(console, done, target)
    return Exit.CHECK_FAILED if any(one.error for one in done) else Exit.DONE


def _warm_for(problems: Problems, variants: Variants, target: str, told: Callable[[Done], None]) -> list[Done]:
    """For a GPU that is not here."""
    parse_target(target)
    cache_folder()
    launches = launches_there(problems, variants, target)
    check_target(target, launches[0].band)
    return [*warm(launches, target, told)]


def _warm_here(problems: Problems, variants: Variants, console: Console, told: Callable[[Done], None]) -> list[Done]:
    """For this machine. Libraries come first: the dispatch layer builds those it lacks."""
    device = find_device(select_device(problems.device))
    if device.warning:
        console.print(f"warning: {device.warning}", style="bold red", markup=False, soft_wrap=True)
    wanted = problems_here(problems, variants, device.type)
    done: list[Done] = []
    for band in dict.fromkeys(problem.band for problem in wanted) if device.type == CPU else ():
        done.append(warm_library(band))
        told(done[-1])
    plans = [dispatch.explain(problem).plan for problem in wanted]
    for backend in sorted({plan.backend for plan in plans} - {TRITON, CPU}):
        console.print(f"warning: training would use the {backend} backend, which compiles nothing", style="bold red", markup=False)
    launches = launches_of([(plan.problem, plan.config) for plan in plans if plan.backend == TRITON], variants)
    return [*done, *(warm(launches, None, told) if launches else [])]


def _name(done: Done) -> str:
    return done.kernel if isinstance(done, Warmed) else "C++ library"


def _band(done: Done) -> int:
    return done.launch.band if isinstance(done, Warmed) else done.band


def _kind(warmed: Warmed) -> str:
    launch = warmed.launch
    flags = [name for name in ("chained", "pieces", "counted", "stochastic") if getattr(launch, name)]
    return ", ".join([launch.graft, *flags, *([warmed.tiles] if warmed.tiles else [])])


def _result(done: Done) -> str:
    if done.error:
        return f"failed: {done.error}"
    return "was there" if done.hit else f"compiled in {done.seconds:.1f} s"


def _json(done: Done, target: str | None) -> dict[str, Any]:
    error = {"error": done.error} if done.error else {}
    head = {"target": target or "here", "band": _band(done), "cached": done.hit, "seconds": done.seconds, **error}
    if isinstance(done, Library):
        return {"kernel": "cpu", **head}
    launch = {**asdict(done.launch), "config": done.launch.config.as_dict()}
    return {"kernel": done.kernel, **head, "key": done.key, "tiles": done.tiles, "launch": launch}


def _table(done: Sequence[Done], target: str | None) -> Table:
    table = Table(title=f"Warm for {target or 'this machine'}", title_justify="left")
    for heading in ("kernel", "band", "configuration", "types", "kind", "result"):
        table.add_column(heading, overflow="fold")
    for one in done:
        cells = ["", "", ""]
        if isinstance(one, Warmed):
            cells = [config_text(one.launch.config.as_dict()), type_names(one.launch.problem("cuda", 1)), _kind(one)]
        table.add_row(_name(one), str(_band(one)), *cells, printable(_result(one)))
    return table


def _say_what_was_done(console: Console, done: Sequence[Done], target: str | None) -> None:
    sound = [one for one in done if not one.error]
    fresh = [one for one in sound if not one.hit]
    lines = [f"{len(fresh)} compiled in {sum(one.seconds for one in fresh):.1f} s, {len(sound) - len(fresh)} were there."]
    if any(isinstance(one, Warmed) for one in done):
        lines.append(f"Triton's cache: {cache_folder()} (TRITON_CACHE_DIR chooses another)")
    if target is not None:
        lines.append("It serves the same versions of everything, at the same path: Triton notes absolute paths in it.")
    console.print(*lines, sep="\n", markup=False, soft_wrap=True)
