"""What became of a candidate that could not be timed. Nothing heavy is imported here: worker processes start with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FailureKind = Literal["compile", "wrong", "error", "timeout"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a candidate has no time."""

    kind: FailureKind
    message: str
