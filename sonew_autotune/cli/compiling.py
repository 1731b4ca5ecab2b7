"""The command `compile`."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from sonew_autotune.cli.options import EPILOG, Json, finish
from sonew_autotune.settings import Exit

app: Final = typer.Typer()


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
        from sonew_autotune.commands.compiling import compile_command  # noqa: PLC0415  # loads torch

        return compile_command(
            band=band, target=target, stage=stage, kernel=kernel, pairs=config or (), dtypes=(dtype, state), entry=entry, as_json=as_json
        )

    finish(command)
