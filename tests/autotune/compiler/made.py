"""Compiled kernels that no compiler made: plain resources, with what a test changes; and a compiler that never ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from sonew_autotune.compiler.kernel import Compiled
from sonew_autotune.compiler.resources import Resources

USED: Final = Resources(
    registers=40,
    spill_store_bytes=0,
    spill_load_bytes=0,
    shared_bytes=0,
    threads=128,
    instructions=100,
    load_widths={4: 3, 16: 2},
    store_widths={4: 1},
    occupancy=0.5,
    mix={"float": 60, "integer": 40},
)
"""44 bytes loaded and 4 stored per thread."""


def used(**changes: Any) -> Resources:
    """The plain resources with changes."""
    return replace(USED, **changes)


def built(kernel: str, target: str = "cuda:90", band: int = 1, **changes: Any) -> Compiled:
    """A compiled kernel without text."""
    return Compiled(kernel=kernel, target=target, band=band, stages={}, resources=used(**changes))


def _sleep(_request: object) -> None:
    time.sleep(600)


def make_sleeper() -> Callable[[object], None]:
    """In place of `cross.make_compiler`."""
    return _sleep
