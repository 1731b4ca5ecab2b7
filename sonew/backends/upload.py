"""Small host arrays on their way to a GPU, without a wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import torch


def pinned_slot(target: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event]:
    """Pinned memory of the target's shape and type, and the event that says when its last copy is done."""
    return torch.empty(target.shape, dtype=target.dtype, device="cpu", pin_memory=True), torch.cuda.Event()


class Upload:
    """Brings a small host array to its device tensor; the host goes on at once.

    Slots of pinned memory take turns. A slot is written again only once its last copy is done: where the oldest is still in
    flight, because the host runs far ahead of the device, one more joins. Only with `LIMIT` slots in flight the host waits.

    Args:
        target: where the values go, on a GPU.
        slot: makes a slot for the target.
    """

    SLOTS: Final = 3
    LIMIT: Final = 64

    def __init__(self, target: torch.Tensor, slot: Callable[[torch.Tensor], tuple[torch.Tensor, torch.cuda.Event]] = pinned_slot) -> None:
        self._target = target
        self._make = slot
        self._slots = deque(slot(target) for _ in range(self.SLOTS))  # oldest copy first

    def send(self, host: torch.Tensor) -> None:
        """Copy in stream order; `host` may change as soon as this returns."""
        oldest = self._slots[0][1]
        if not oldest.query():
            if len(self._slots) < self.LIMIT:
                self._slots.appendleft(self._make(self._target))
            else:
                oldest.synchronize()
        buffer, done = self._slots[0]
        self._slots.rotate(-1)
        buffer.copy_(host)
        self._target.copy_(buffer, non_blocking=True)
        done.record(torch.cuda.current_stream(self._target.device))
