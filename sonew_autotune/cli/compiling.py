"""The command `compile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from sonew.errors import InvalidConfigError
from sonew_autotune.cli.options import EPILOG, Json, finish
from sonew_autotune.settings import Exit

app: Final = typer.Typer()
STAGES: Final = "ttir, ttgir, llir, ptx, sass, cubin (cuda) or amdgcn, hsaco (hip). None: the table only."


def _one_of(**asked: object) -> None:
    """Refuse options that ask for two different things."""
    given = [f"--{name.replace('_', '-')}" for name, value in asked.items() if value]
    if len(given) > 1:
        msg = f"{' and '.join(given)} do not go together. Pass one of them."
        raise InvalidConfigError(msg)


@app.command(
    "compile",
    epilog=EPILOG,
    help=(
        "Compile the kernels for a GPU that need not be here; print a stage and what the machine code takes: registers, spills, "
        "shared memory, load and store widths. Compare two ways to compile them, or keep the machine code with a manifest.\n\n"
        "A side of --diff is name=value pairs joined by commas, over the command's other options: block, num_warps, update_block, "
        "update_num_warps, band, target, entry, dtype, state, graft, chain, or triton=FOLDER, another Triton made by "
        '"pip install --no-deps --target FOLDER triton==3.6.0". "" is as the command says.\n\n'
        "[bold]Examples[/bold]\n\n"
        "  sonew-autotune compile --band 4 --target cuda:90\n\n"
        "  sonew-autotune compile --band 4 --target cuda:90 --stage sass --kernel direction --config block=512\n\n"
        "  sonew-autotune compile --band 1 --target hip:gfx942 --stage hsaco --output direction.hsaco\n\n"
        "  sonew-autotune compile --band 4 --diff block=256 block=512,num_warps=8\n\n"
        '  sonew-autotune compile --kernel update --stage ttgir --diff "" triton=FOLDER\n\n'
        "  sonew-autotune compile --band 4 --target cuda:90 --bundle FOLDER\n\n"
        "  sonew-autotune compile --check-bundle FOLDER"
    ),
)
def compile_(
    *,
    band: Annotated[int, typer.Option(help="Off-diagonals, 0 to 8 or 16.")] = 1,
    target: Annotated[str, typer.Option(help="cuda:80, cuda:90, cuda:100, cuda:120, hip:gfx942, hip:gfx950, hip:gfx1100 ...")] = "cuda:90",
    stage: Annotated[str | None, typer.Option(help=STAGES)] = None,
    kernel: Annotated[
        str | None, typer.Option(help="prologue, direction, norms or update. Default: all, or direction with a stage.")
    ] = None,
    config: Annotated[list[str] | None, typer.Option(help="name=value over the default configuration; repeatable.")] = None,
    dtype: Annotated[str, typer.Option(help="Of parameters and gradients: float32, bfloat16 or float16.")] = "float32",
    state: Annotated[str, typer.Option(help="Of state and direction: float32 or bfloat16.")] = "float32",
    graft: Annotated[str, typer.Option(help="none, adam, adam_uncorrected, sgd or rmsprop.")] = "adam",
    chain: Annotated[str, typer.Option(help="tensor, row or a length: where chains end.")] = "tensor",
    entry: Annotated[str, typer.Option(help="table (torch), direct or in_place (jax).")] = "table",
    output: Annotated[Path | None, typer.Option(help="File for the stage; machine code needs one, or a pipe.")] = None,
    diff: Annotated[tuple[str, str] | None, typer.Option(metavar="A B", help="Say what sets B apart from A.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Folder for the machine code of every kernel, with a manifest.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
    check_bundle: Annotated[Path | None, typer.Option(help="Verify a bundle's files; exit code 1 where one is not as it was.")] = None,
    as_json: Json = False,
) -> None:
    """Compile; the help text stands in the decorator."""

    def command() -> Exit:
        from sonew_autotune.commands import comparing, compiling  # noqa: PLC0415  # load torch
        from sonew_autotune.compiler.wanted import Wanted  # noqa: PLC0415  # as above

        _one_of(diff=diff, bundle=bundle, check_bundle=check_bundle, output=output)
        _one_of(stage=stage, bundle=bundle, check_bundle=check_bundle)
        _one_of(kernel=kernel, bundle=bundle, check_bundle=check_bundle)
        if check_bundle is not None:
            return compiling.check_bundle_command(check_bundle, as_json=as_json)
        wanted = Wanted(
            band=band, target=target, entry=entry, dtype=dtype, state=state, graft=graft, chain=chain, config=tuple(config or ())
        )
        if diff is not None:
            return comparing.diff_command(wanted, diff, stage=stage, kernel=kernel, as_json=as_json)
        if bundle is not None:
            return compiling.bundle_command(wanted, bundle, force=force, as_json=as_json)
        return compiling.compile_command(wanted, stage=stage, kernel=kernel, output=output, as_json=as_json)

    finish(command)
