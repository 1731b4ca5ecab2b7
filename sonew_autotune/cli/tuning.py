"""The command `run`."""

from __future__ import annotations

import time
from typing import Annotated, Final

import typer

from sonew_autotune.cli.options import EPILOG, Band, Device, Dtype, Json, Model, Size, State, StateDir, Store, finish
from sonew_autotune.commands.interrupt import interrupted_once
from sonew_autotune.settings import EFFORTS, Exit, Problems, make_settings

app: Final = typer.Typer()


@app.command(
    epilog=EPILOG,
    help=(
        "Tune this machine: check each candidate against the reference, time it against the default, keep what wins.\n\n"
        "A second run reuses what is stored and resumes what was broken off.\n\n"
        "[bold]Examples[/bold]\n\n"
        "  sonew-autotune run\n\n"
        "  sonew-autotune run --effort quick --band 1 --size 4194304\n\n"
        "  sonew-autotune run --model gpt2-small --dtype bfloat16 --budget 600\n\n"
        "  sonew-autotune run --target cuda:90      (compile and rank for a GPU that is not here)"
    ),
)
def run(
    *,
    band: Band = None,
    size: Size = None,
    model: Model = None,
    dtype: Dtype = None,
    state: State = None,
    device: Device = "auto",
    trials: Annotated[int | None, typer.Option(help="Configurations to try per problem, earlier runs counted in.")] = None,
    budget: Annotated[float | None, typer.Option(help="Seconds for the whole run; it may reach 10 s beyond.")] = None,
    effort: Annotated[
        str, typer.Option(help="; ".join(f"{name}: {s.trials} trials, {s.budget_s:.0f} s" for name, s in EFFORTS.items()))
    ] = "normal",
    seed: Annotated[int, typer.Option(help="Of the search and of the orders of timing.")] = 0,
    target: Annotated[str | None, typer.Option(help="Compile and rank for cuda:80, cuda:90, hip:gfx942 ... instead of measuring.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget earlier trials and tune again.")] = False,
    store: Store = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Tune; the help text stands in the decorator."""
    started = time.monotonic()

    def command() -> Exit:
        seconds = EFFORTS["full"].budget_s if budget is None and target is not None else budget  # compiling every candidate ends by itself
        settings = make_settings(effort, trials=trials, budget_s=seconds, seed=seed, fresh=fresh)
        problems = Problems(bands=band or (), sizes=size or (), models=model or (), dtypes=dtype or (), states=state or (), device=device)
        if target is not None:
            from sonew_autotune.commands.compiling import run_static  # noqa: PLC0415  # loads torch: `--help` must not wait for it

            with interrupted_once():
                return run_static(problems, target, settings, started=started, as_json=as_json)
        from sonew_autotune.commands.tuning import run as run_here  # noqa: PLC0415  # loads torch

        with interrupted_once():
            return run_here(problems, settings, started=started, as_json=as_json)

    finish(command, store=store, state_dir=state_dir)
