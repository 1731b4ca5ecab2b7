"""One trial at a time on a device, whoever tunes: two processes that timed side by side would time each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sonew_autotune.store.journal import locked

Answer = Callable[[Any, float], Any]


def in_turn(answer: Answer, lock: Path) -> Answer:
    """The same answers, each while holding a lock that every tuning process on this machine takes for this device.

    Waiting for it does not count against a request's own time.
    """

    def wait_and_answer(request: object, timeout_s: float) -> Any:  # noqa: ANN401  # whatever `answer` gives
        with locked(lock):
            return answer(request, timeout_s)

    return wait_and_answer
