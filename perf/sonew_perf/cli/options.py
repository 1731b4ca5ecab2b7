"""Options that several commands share, and how a command ends."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import torch
import typer
from rich.console import Console

from sonew.errors import SonewError
from sonew_autotune.device import DEVICES, NoDeviceError, find_device
from sonew_autotune.settings import Exit
from sonew_autotune.trials.turns import DeviceBusyError
from sonew_perf.errors import MeasurementError

EPILOG: Final = (
    "Exit codes: 0 done, 1 the check or comparison failed, 2 wrong use or broken input, 3 could not judge (noise, no data, no device), "
    "130 interrupted (finished work is kept)."
)
NOT_JUDGED: Final = (NoDeviceError, MeasurementError, DeviceBusyError)
BROKEN: Final = 70  # as sysexits.h names a program's own error
UNREAD: Final = 141  # as shells report SIGPIPE


class Output(Console):
    """A console whose reader may go away: that is an error like any other, where rich ends the process with a failed check's exit code."""

    def on_broken_pipe(self) -> None:
        """Raise it."""
        raise BrokenPipeError


def _drop_output() -> None:
    """What is still to be printed goes nowhere: at its end the interpreter would try again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def exit_codes() -> Iterator[None]:
    """Errors that name their fix, a path that cannot be used and Ctrl-C become one line and an exit code.

    Exit code 1 is a failed check's alone: a fault of the program is its traceback and 70; where nobody reads on, it ends silently with 141.
    """
    try:
        yield
    except SonewError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(Exit.NOT_JUDGED if isinstance(error, NOT_JUDGED) else Exit.WRONG_USE) from error
    except BrokenPipeError:
        _drop_output()
        raise typer.Exit(UNREAD) from None
    except OSError as error:
        typer.echo(f"error: {error}. Make the place readable and writable, or choose another with --output or --store.", err=True)
        raise typer.Exit(Exit.WRONG_USE) from error
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(Exit.INTERRUPTED) from None
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except Exception as error:  # whatever it is, nothing was found slower or wrong
        traceback.print_exc()
        raise typer.Exit(BROKEN) from error


def among(allowed: Sequence[str]) -> Callable[[object], object]:
    """A check for an option's value or values; the message names the value and the allowed set."""

    def check(value: object) -> object:
        for name in value if isinstance(value, list) else [value]:
            if name is not None and name not in allowed:
                msg = f"{name!r} is not one of {list(allowed)}"
                raise typer.BadParameter(msg)
        return value

    return check


Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", callback=among(DEVICES))]
Store = Annotated[Path | None, typer.Option(help="The folder of runs, instead of SONEW_PERF_STORE or the user's data folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print the entries as JSON instead of tables.")]


def find(device: str) -> torch.device:
    """The device to measure on; a GPU that is there but cannot be used is a loud line."""
    found = find_device(device)
    if found.warning is not None:
        Console(stderr=True).print(found.warning, style="bold red", markup=False)
    return torch.device(found.type)


def print_lines(console: Console, lines: Sequence[str]) -> None:
    """Lines as they are: no markup, no colours, no wrapping."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
