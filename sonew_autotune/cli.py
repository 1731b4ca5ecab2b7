"""The command line `sonew-autotune`: options and help; the work is in `commands` and `static_commands`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from sonew.errors import SonewError
from sonew_autotune.interrupt import interrupted_once
from sonew_autotune.settings import EFFORTS, Exit, Problems, make_settings

EPILOG: Final = (
    "Exit codes: 0 done, 1 a check failed, 2 wrong use or broken input, 3 could not judge (no device, no time), "
    "130 interrupted (finished work is kept)."
)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Tune the SONew step for this machine, or compile it for another; keep the winners where `sonew` finds them.",
    epilog=EPILOG,
)

Band = Annotated[list[int] | None, typer.Option(help="Off-diagonals, 0 to 8 or 16; repeatable. Default: 1, 2 and 4.")]
Size = Annotated[list[int] | None, typer.Option(help="Elements of one tensor; repeatable. Default: 65536, 4194304 and a model.")]
Model = Annotated[
    list[str] | None, typer.Option(help="A model's tensors as one group: mnist-autoencoder, gpt2-small, llama-1b; repeatable.")
]
Dtype = Annotated[list[str] | None, typer.Option(help="Parameters and gradients: float32, bfloat16 or float16; repeatable.")]
State = Annotated[list[str] | None, typer.Option(help="State and direction: float32 or bfloat16; repeatable.")]
Device = Annotated[str, typer.Option(help="auto (a usable GPU, else the CPU), cpu or cuda.")]
Json = Annotated[bool, typer.Option("--json", help='Print {"schema_version", "entries": [...]} on stdout; everything else goes to stderr.')]
Store = Annotated[Path | None, typer.Option(help="The store, instead of SONEW_STORE or the user's data folder.")]
StateDir = Annotated[Path | None, typer.Option(help="Where studies are kept, instead of SONEW_STATE_DIR or the user's state folder.")]


def _finish(command: Callable[[], Exit], *, store: Path | None = None, state_dir: Path | None = None) -> None:
    """Run a command and exit with its code; an error the package raises on purpose, or a file that cannot be used, is one line."""
    for name, path in (("SONEW_STORE", store), ("SONEW_STATE_DIR", state_dir)):
        if path is not None:
            os.environ[name] = str(path)  # one way to say it: the dispatch layer reads the environment, too
    try:
        code = command()
    except SonewError as error:
        typer.echo(f"error: {error}", err=True)
        code = getattr(error, "exit_code", Exit.WRONG_USE)
    except BrokenPipeError:
        raise  # whoever read the output has enough; typer ends quietly
    except OSError as error:
        typer.echo(f"error: {error}. Make the place readable and writable, or choose another with --store or --state-dir.", err=True)
        code = Exit.WRONG_USE
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        code = Exit.INTERRUPTED
    raise typer.Exit(int(code))


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
            from sonew_autotune.static_commands import run_static  # noqa: PLC0415  # loads torch: `--help` must not wait for it

            with interrupted_once():
                return run_static(problems, target, settings, started=started, as_json=as_json)
        from sonew_autotune.commands import run as run_here  # noqa: PLC0415  # loads torch

        with interrupted_once():
            return run_here(problems, settings, started=started, as_json=as_json)

    _finish(command, store=store, state_dir=state_dir)


@app.command(
    epilog=EPILOG,
    help=(
        "List the stored configurations with their evidence, and whether each one is usable on this machine.\n\n"
        "[bold]Example[/bold]\n\n  sonew-autotune show --json"
    ),
)
def show(*, store: Store = None, as_json: Json = False) -> None:
    """Show; the help text stands in the decorator."""

    def command() -> Exit:
        from sonew_autotune import commands  # noqa: PLC0415  # loads torch

        return commands.show(as_json=as_json)

    _finish(command, store=store)


@app.command(
    epilog=EPILOG,
    help=(
        "Say which backend and which configuration a problem gets, and why: every backend's verdict, every stored entry with the "
        "fields that speak against it.\n\n"
        "[bold]Example[/bold]\n\n  sonew-autotune explain --band 4 --size 4194304 --device cpu"
    ),
)
def explain(
    *,
    band: Band = None,
    size: Size = None,
    model: Model = None,
    dtype: Dtype = None,
    state: State = None,
    device: Device = "auto",
    backend: Annotated[str, typer.Option(help="auto, triton, cpu or reference.")] = "auto",
    tuning: Annotated[str, typer.Option(help="on (user's store, then shipped), pinned (shipped only) or off.")] = "on",
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Explain; the help text stands in the decorator."""

    def command() -> Exit:
        from sonew_autotune import commands  # noqa: PLC0415  # loads torch

        problems = Problems(bands=band or (), sizes=size or (), models=model or (), dtypes=dtype or (), states=state or (), device=device)
        return commands.explain(problems, backend=backend, tuning=tuning, as_json=as_json)

    _finish(command, store=store)


@app.command(
    "compile",
    epilog=EPILOG,
    help=(
        "Compile the kernels for a GPU that need not be here; print a stage and what the machine code takes: registers, spills, "
        "shared memory, load and store widths.\n\n"
        "[bold]Examples[/bold]\n\n"
        "  sonew-autotune compile --band 4 --target cuda:90\n\n"
        "  sonew-autotune compile --band 4 --target cuda:90 --stage sass --kernel direction --config block=512\n\n"
        "  sonew-autotune compile --band 1 --target hip:gfx942 --stage amdgcn"
    ),
)
def compile_(
    *,
    band: Annotated[int, typer.Option(help="Off-diagonals, 0 to 8 or 16.")] = 1,
    target: Annotated[str, typer.Option(help="cuda:80, cuda:90, cuda:100, hip:gfx942 ...")] = "cuda:90",
    stage: Annotated[str | None, typer.Option(help="ttir, ttgir, llir, ptx, sass (cuda) or amdgcn (hip); none: the table only.")] = None,
    kernel: Annotated[
        str | None, typer.Option(help="prologue, direction, norms or update. Default: all, or direction with a stage.")
    ] = None,
    config: Annotated[list[str] | None, typer.Option(help="name=value over the default configuration; repeatable.")] = None,
    dtype: Annotated[str, typer.Option(help="Of parameters and gradients: float32, bfloat16 or float16.")] = "float32",
    state: Annotated[str, typer.Option(help="Of state and direction: float32 or bfloat16.")] = "float32",
    entry: Annotated[str, typer.Option(help="table (torch), direct or in_place (jax).")] = "table",
    as_json: Json = False,
) -> None:
    """Compile; the help text stands in the decorator."""

    def command() -> Exit:
        from sonew_autotune.static_commands import compile_command  # noqa: PLC0415  # loads torch

        return compile_command(
            band=band, target=target, stage=stage, kernel=kernel, pairs=config or (), dtypes=(dtype, state), entry=entry, as_json=as_json
        )

    _finish(command)


if __name__ == "__main__":
    app()
