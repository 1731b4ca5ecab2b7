"""Uploads to a GPU: in order, without waiting, and no slot is written while its last copy may still be read."""

from __future__ import annotations

import gc
import weakref
from collections import deque
from typing import Any

import pytest
import torch

from sonew.backends.table import GroupTable, Leaf
from sonew.backends.upload import Upload
from sonew.config import Hyper, Problem
from sonew_kernels.spec import Slot


class Device:
    """A GPU's copy queue: a copy stays in flight until the device gets to it, and then reads what its slot holds."""

    def __init__(self) -> None:
        self.queue: deque[FakeEvent] = deque()
        self.made: list[torch.Tensor] = []
        self.received: list[float] = []
        self.waited = 0

    def slot(self, target: torch.Tensor) -> tuple[torch.Tensor, Any]:
        self.made.append(torch.full_like(target, -1))
        return self.made[-1], FakeEvent(self, self.made[-1])

    def advance(self, copies: int) -> None:
        for _ in range(copies):
            event = self.queue.popleft()
            event.pending = False
            self.received.append(event.buffer[0].item())


class FakeEvent:
    """An event behind one slot's copy."""

    def __init__(self, device: Device, buffer: torch.Tensor) -> None:
        self.device, self.buffer, self.pending = device, buffer, False

    def query(self) -> bool:
        return not self.pending

    def synchronize(self) -> None:
        self.device.waited += 1
        while self.pending:
            self.device.advance(1)

    def record(self, _stream: Any) -> None:
        assert not self.pending, "recorded anew before its last copy was done"
        self.pending = True
        self.device.queue.append(self)


@pytest.mark.parametrize(
    ("behind", "slots", "waited"),
    [
        (0, Upload.SLOTS, 0),
        (Upload.SLOTS - 1, Upload.SLOTS, 0),
        (Upload.SLOTS, Upload.SLOTS + 1, 0),
        (20, 21, 0),
        (Upload.LIMIT - 1, Upload.LIMIT, 0),
        (Upload.LIMIT + 10, Upload.LIMIT, 200 - Upload.LIMIT),
    ],
)
def test_the_ring_grows_before_the_host_waits(behind: int, slots: int, waited: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that many copies behind still gets every value, in order; no more memory is pinned than that takes."""
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: None)
    device, target, host = Device(), torch.zeros(2), torch.zeros(2)
    upload = Upload(target, device.slot)
    for value in range(200):
        host.fill_(value)
        upload.send(host)
        host.fill_(-5)
        assert target.tolist() == [value, value]
        device.advance(max(0, len(device.queue) - behind))
    device.advance(len(device.queue))
    assert device.received == list(range(200))
    assert (len(device.made), device.waited) == (slots, waited)


def test_a_ring_that_grew_serves_later_bursts(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the device has caught up nothing more is pinned, and order holds over further bursts."""
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: None)
    device, target = Device(), torch.zeros(2)
    upload = Upload(target, device.slot)
    bursts = (10, 3, 10, 1, 9)
    for burst in bursts:
        for _ in range(burst):
            upload.send(torch.full((2,), float(len(device.received) + len(device.queue))))
        device.advance(len(device.queue))
    assert device.received == list(range(sum(bursts)))
    assert (len(device.made), device.waited) == (10, 0)


def test_the_step_size_lies_in_the_settings_or_in_a_tensor() -> None:
    """`lr` is where kernels read: a view of the settings' vector, or the tensor itself, and the numbers beside it stay."""
    leaf = Leaf(torch.zeros(3), torch.zeros(3), torch.zeros(2, 3), torch.zeros((), dtype=torch.int32), 3)
    table = GroupTable([leaf], Problem(device="cpu", band=1, total=3, median=3), tile=4, update_tile=4)
    table.set_hyper(Hyper(lr=0.5, eps=0.25))
    assert table.lr.data_ptr() == table.hyper[Slot.LR].data_ptr()
    assert (table.lr.item(), table.hyper[Slot.EPS].item()) == (0.5, 0.25)
    rate = torch.tensor([0.125])
    table.set_hyper(Hyper(lr=0.5, eps=0.5), rate)
    assert table.lr is rate
    assert (table.hyper[Slot.LR].item(), table.hyper[Slot.EPS].item()) == (0.5, 0.5)
    table.set_hyper(Hyper(lr=0.75, eps=0.5))
    assert table.lr.item() == 0.75


def test_a_capture_keeps_the_gradients_that_it_reads() -> None:
    """A graph reads them in every replay, also when `zero_grad` has let go of them."""
    param = torch.ones(4)
    leaf = Leaf(param, torch.zeros(4), torch.zeros(2, 4), torch.zeros((), dtype=torch.int32), 4)
    table = GroupTable([leaf], Problem(device="cpu", band=1, total=4, median=4), tile=127, update_tile=256)
    grad = torch.ones(4)
    kept = weakref.ref(grad)
    table.prepare_capture()
    with table.capture([grad]):
        pass
    del grad
    gc.collect()
    assert kept() is not None
