"""What became of a candidate that could not be timed. Nothing heavy is imported here: worker processes start with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

FailureKind = Literal["compile", "compile timeout", "wrong", "memory", "illegal access", "crash", "timeout", "error"]

MEANINGS: Final[Mapping[FailureKind, str]] = {
    "compile": "the compiler or its tools refuse it, or it asks for more than the device has",
    "compile timeout": "compiling it took too long and was stopped",
    "wrong": "its results differ from the reference",
    "memory": "out of memory",
    "illegal access": "it touched memory that is not its own; the device had to be opened anew",
    "crash": "its process died",
    "timeout": "it took too long and was stopped",
    "error": "it raised something else",
}
KINDS: Final[tuple[FailureKind, ...]] = get_args(FailureKind)
TAINTING: Final[frozenset[FailureKind]] = frozenset({"memory", "illegal access", "error"})
"""Failures after which the process that had them is not trusted with the next candidate."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a candidate has no time."""

    kind: FailureKind
    message: str
