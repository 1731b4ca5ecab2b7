"""Uploads to a GPU: no slot is written while its last copy may still be read."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sonew.backends.table import Upload


class FakeEvent:
    """An event that knows whether anybody waited since it was recorded."""

    def __init__(self) -> None:
        self.pending = False
        self.waited = 0

    def synchronize(self) -> None:
        self.pending = False
        self.waited += 1

    def record(self, _stream: Any) -> None:
        assert not self.pending, "recorded anew before its last copy was done"
        self.pending = True


def test_slots_take_turns_and_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    slots: list[tuple[torch.Tensor, FakeEvent]] = []

    def slot(target: torch.Tensor) -> tuple[torch.Tensor, FakeEvent]:
        slots.append((torch.full_like(target, -1), FakeEvent()))
        return slots[-1]

    monkeypatch.setattr(Upload, "_slot", staticmethod(slot))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: None)
    target, host = torch.zeros(2), torch.zeros(2)
    upload = Upload(target)
    for value in range(2 * Upload.SLOTS + 1):
        host.fill_(value)
        upload.send(host)
        host.fill_(-5)
        assert target.tolist() == [value, value]
    assert [event.waited for _, event in slots] == [3, 2, 2]
    assert [buffer[0].item() for buffer, _ in slots] == [6, 4, 5]
