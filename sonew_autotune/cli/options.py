"""Options that several commands share, and how a command ends. Nothing heavy is imported here: `--help` must not wait for torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from sonew.errors import SonewError
from sonew_autotune.settings import Exit, Problems

EPILOG: Final = (
    "Exit codes: 0 done, 1 a check failed, 2 wrong use or broken input, 3 could not judge (no device, no time), "
    "130 interrupted (finished work is kept)."
)

Band = Annotated[list[int] | None, typer.Option(help="Off-diagonals, 0 to 8 or 16; repeatable. Default: 1, 2 and 4.")]
Size = Annotated[list[int] | None, typer.Option(help="Elements of one tensor; repeatable. Default: 65536, 4194304 and a model.")]
Model = Annotated[
    list[str] | None, typer.Option(help="A model's tensors as one group: mnist-autoencoder, gpt2-small, llama-1b; repeatable.")
]
Dtype = Annotated[list[str] | None, typer.Option(help="Parameters and gradients: float32, bfloat16 or float16; repeatable.")]
State = Annotated[list[str] | None, typer.Option(help="State and direction: float32 or bfloat16; repeatable.")]
Device = Annotated[str, typer.Option(help="auto (a usable GPU, else the CPU), cpu, cuda or cuda:<number>.")]
Json = Annotated[bool, typer.Option("--json", help='Print {"schema_version", "entries": [...]} on stdout; everything else goes to stderr.')]
Store = Annotated[Path | None, typer.Option(help="The store, instead of SONEW_STORE or the user's data folder.")]
StateDir = Annotated[Path | None, typer.Option(help="Where studies are kept, instead of SONEW_STATE_DIR or the user's state folder.")]


def problems_of(band: Band, size: Size, model: Model, dtype: Dtype, state: State, device: str) -> Problems:
    """The problem list that these options ask for."""
    return Problems(bands=band or (), sizes=size or (), models=model or (), dtypes=dtype or (), states=state or (), device=device)


def finish(command: Callable[[], Exit], *, store: Path | None = None, state_dir: Path | None = None) -> None:
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
