"""The seconds that a whole run may take: what does not fit is not begun, and what runs over is stopped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

GRACE_S: Final = 3.0  # that a group may take beyond what was left: an estimate is no promise


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Wall time of a run.

    Attributes:
        seconds: of the whole run; infinite where nobody set any. began: at what `clock` the run began. clock: in seconds.
    """

    seconds: float = math.inf
    began: float = 0.0
    clock: Callable[[], float] = time.monotonic

    @property
    def left(self) -> float:
        """Seconds that are left; negative where it is over."""
        return self.began + self.seconds - self.clock()

    @property
    def end(self) -> float:
        """When whatever runs is stopped, by the clock."""
        return self.began + self.seconds + GRACE_S

    def refusal(self, needed: float) -> str | None:
        """Why something that takes so many seconds is not begun, or None."""
        if needed <= self.left:
            return None
        return f"the budget of {self.seconds:g} s has {max(self.left, 0.0):.0f} s left, and it takes about {math.ceil(needed)} s"

    @property
    def cut(self) -> str | None:
        """Why something was stopped, or None where time is left."""
        return f"the budget of {self.seconds:g} s ended while it was measured" if self.left <= 0 else None
