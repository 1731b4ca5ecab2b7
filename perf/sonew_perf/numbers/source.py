"""Where a marked place's text comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Source:
    """Where a marked place's text comes from.

    Attributes:
        records: names of files in perf/baselines.
        write: makes the text of them, given in that order; a block's text ends with a line end.
    """

    records: tuple[str, ...]
    write: Callable[..., str]
