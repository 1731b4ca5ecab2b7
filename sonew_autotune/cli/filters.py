"""Options that choose among stored entries."""

from __future__ import annotations

from typing import Annotated

import typer

Bands = Annotated[list[int] | None, typer.Option("--band", help="Entries of this band only; repeatable.")]
Kernel = Annotated[str | None, typer.Option(help="Entries of this kernel family only: triton or cpu.")]
DevicePart = Annotated[str | None, typer.Option("--device", help="Entries whose device or capability contains this: H100, cuda:90 ...")]
Kind = Annotated[str | None, typer.Option(help="measured or static entries only.")]
Usable = Annotated[bool, typer.Option("--usable", help="Only entries that this machine can use.")]
