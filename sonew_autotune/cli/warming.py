"""The command `warm`."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from sonew_autotune.cli.options import EPILOG, Band, Device, Dtype, Json, Model, Size, State, Store, finish, problems_of
from sonew_autotune.settings import Exit

app: Final = typer.Typer()


@app.command(
    epilog=EPILOG,
    help=(
        "Compile what training with torch will launch, so that its first step does not: Triton's kernels for a GPU, the C++ library for "
        "the CPU, in the configurations that sonew would choose.\n\n"
        "Without problem options: for every usable entry of the user's store, else for the default problems. Another configuration, "
        "graft or type means other kernels; so do chains, sharded parameters, counters and stochastic rounding, which have options here. "
        "Left to the first step: buffers of 2 GiB and more on AMD GPUs and, with --target, the module by which Triton talks to the driver. "
        "JAX compiles for itself.\n\n"
        "[bold]Examples[/bold]\n\n"
        "  sonew-autotune warm\n\n"
        "  sonew-autotune warm --model gpt2-small --dtype bfloat16 --stochastic-rounding\n\n"
        "  TRITON_CACHE_DIR=/opt/triton sonew-autotune warm --target cuda:90      (in an image that will run elsewhere)"
    ),
)
def warm(
    *,
    band: Band = None,
    size: Size = None,
    model: Model = None,
    dtype: Dtype = None,
    state: State = None,
    device: Device = "auto",
    target: Annotated[str | None, typer.Option(help="A GPU that is not here: cuda:80, cuda:90, hip:gfx942 ...")] = None,
    graft: Annotated[
        list[str] | None, typer.Option(help="none, adam, adam_uncorrected, sgd or rmsprop; repeatable. Default: adam.")
    ] = None,
    chain: Annotated[str, typer.Option(help="tensor, row or a length: where chains end.")] = "tensor",
    counters: Annotated[bool, typer.Option("--counters", help="Also as SONew(counters=True) launches.")] = False,
    sharded: Annotated[bool, typer.Option("--sharded", help="Also as sharded parameters (DTensors) are launched.")] = False,
    stochastic_rounding: Annotated[
        bool, typer.Option("--stochastic-rounding", help="Also as SONew(stochastic_rounding=True) launches bfloat16 parameters.")
    ] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Warm; the help text stands in the decorator."""

    def command() -> Exit:
        from sonew_autotune.commands.choices import Variants  # noqa: PLC0415  # loads torch
        from sonew_autotune.commands.warming import warm_command  # noqa: PLC0415  # as above

        problems = problems_of(band, size, model, dtype, state, device)
        variants = Variants(grafts=graft or (), chain=chain, counters=counters, sharded=sharded, stochastic_rounding=stochastic_rounding)
        return warm_command(problems, variants, target=target, as_json=as_json)

    finish(command, store=store)
