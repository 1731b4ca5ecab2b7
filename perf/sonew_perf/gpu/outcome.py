"""What became of a unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["done", "failed", "unfinished"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a unit.

    Attributes:
        status: "unfinished" is done again by the next run; the other two stand.
        reason: one line: why not done, or what to know of it.
        result: what was found, JSON types only.
    """

    status: Status
    reason: str = ""
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def final(self) -> bool:
        """Whether there is nothing left to do."""
        return self.status != "unfinished"


def of_timing(answer: Mapping[str, Any], cases: int) -> Outcome:
    """What became of a timing that answered with its `entries` and `failures`."""
    failed = f"{len(answer['failures'])} of {cases} cases could not be timed" if answer["failures"] else ""
    return Outcome(status="done" if answer["entries"] else "failed", reason=failed, result=dict(answer))
