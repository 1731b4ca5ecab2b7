"""In-place hazards: no program touches what another one writes, and neither program order nor tile size changes a bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import triton
from triton.runtime.interpreter import InterpreterBuilder

import sonew_kernels.window as window_module
from sonew.config import Hyper
from tests.kernels.interpreter.harness import Group
from tests.kernels.interpreter.joined import Joined, Part
from tests.kernels.interpreter.recorder import watched

Bits = tuple[torch.Tensor, ...]


@contextmanager
def shuffled(monkeypatch: pytest.MonkeyPatch, seed: int) -> Iterator[None]:
    """Run the programs of every launch inside in a random order."""
    set_index = InterpreterBuilder.set_grid_idx

    def permuted(self: Any, x: int, y: int, z: int) -> None:
        order = np.random.default_rng(seed).permutation(self.grid_dim[0])
        set_index(self, int(order[x]), y, z)

    with monkeypatch.context() as patch:
        patch.setattr(InterpreterBuilder, "set_grid_idx", permuted)
        yield


@triton.jit
def halo_from_state(momentum, stats, record, end_record, lane, first, length, BAND, TILE, PIECES):
    """The planted hazard: neighbours' elements are read where their owners write them."""
    return momentum + (first - BAND + lane), stats + (first - BAND + lane), length


@triton.jit
def no_halo(momentum, stats, record, end_record, lane, first, length, BAND, TILE, PIECES):
    """The planted error: whatever lies outside the tile is taken from the tile's first element."""
    place = tl.where((lane >= BAND) & (lane < BAND + TILE), first - BAND + lane, first)
    return momentum + place, stats + place, length


tl = triton.language


def phases(group: Group) -> dict[str, Callable[[], None]]:
    return {name: getattr(group.stepper, name) for name in ("prologue", "direction", "norms", "update")}


def outcome(group: Group) -> Bits:
    """Direction, momentum and stats of every tensor, as bits."""
    directions = tuple(torch.from_numpy(group.direction(i)) for i in range(len(group.sizes)))
    states = tuple(tensor for leaf in group.leaves for tensor in (leaf.momentum, leaf.stats))
    return tuple(tensor.clone().contiguous().view(torch.int32) for tensor in (*directions, *states))


def stepped(**settings: Any) -> Group:
    group = Group((300, 5, 260), Hyper(band=2), seed=1, **settings)
    for phase in phases(group).values():
        phase()
    return group


def equal(a: Bits, b: Bits) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("band", "chain"), [(0, "tensor"), (1, "tensor"), (2, 5), (8, "tensor")])
def test_no_program_touches_what_another_writes(band: int, chain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every launch of a step, over tensors of several tiles."""
    group = Group((300, 5, 260), Hyper(band=band, chain=chain), steps=3)
    for name, phase in phases(group).items():
        with watched(monkeypatch) as recorder:
            phase()
        programs = {access.program for access in recorder.accesses}
        assert len(programs) == group.stepper._grids[name][0], name
        assert any(access.write for access in recorder.accesses), name
        assert recorder.conflicts() == [], name


def joined(band: int, chain: int, *, pieces: bool) -> Joined:
    """Joined tensors of several tiles, whole ones or pieces."""
    parts = []
    for seed, size in enumerate((300, 5, 260)):
        make = torch.Generator().manual_seed(seed)
        grad, momentum, *stats = torch.randn((band + 3, size), generator=make)
        squares, beyond = torch.stack(stats).abs() + 1, torch.ones(2, band + 3, band)
        place: dict[str, int] = {"total": 5 * size, "number": 2} if pieces else {}
        parts.append(Part(grad=grad, momentum=momentum, stats=squares, chain=chain, outside=beyond, **place))
    slots = Group((1,), Hyper(band=band)).stepper.table.hyper
    return Joined(parts, slots, 3, pieces=pieces)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(("band", "chain", "pieces"), [(0, 1000, True), (1, 1000, True), (2, 5, False)])
def test_no_program_of_a_direct_call_touches_what_another_writes(
    band: int, chain: int, pieces: bool, in_place: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same over joined tensors, in place too; two runs with shuffled programs give the same bits."""
    call = joined(band, chain, pieces=pieces)
    for launch in (call.prologue, lambda: call.direct(in_place=in_place), call.norms):
        with watched(monkeypatch) as recorder:
            launch()
        assert any(access.write for access in recorder.accesses)
        assert recorder.conflicts() == []
    again = joined(band, chain, pieces=pieces)
    with shuffled(monkeypatch, 0):
        again.run(in_place=in_place)
    assert all(equal(call.outcome(i), again.outcome(i)) for i in range(3))


def test_recorder_finds_a_halo_read_from_the_state_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted kernel fails the check above where it steps in place, and where it does not it harms nobody."""
    monkeypatch.setattr(window_module, "old_values", halo_from_state)
    for in_place in (False, True):
        call = joined(1, 1000, pieces=False)
        call.prologue()
        with watched(monkeypatch) as recorder:
            call.direct(in_place=in_place)
        assert any("touches what program" in conflict for conflict in recorder.conflicts()) == in_place


def test_recorder_finds_a_halo_read_from_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted in-place kernel fails the check above."""
    group = Group((300,), Hyper(band=1), steps=3)
    group.stepper.prologue()
    monkeypatch.setattr(window_module, "old_values", halo_from_state)
    with watched(monkeypatch) as recorder:
        group.stepper.direction()
    assert any("touches what program" in conflict for conflict in recorder.conflicts())


def test_recorder_finds_a_read_after_the_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that reads back its own store fails the check as well: on a GPU another warp's read would race."""
    group = Group((300,), Hyper(band=0), steps=1)
    with watched(monkeypatch) as recorder:
        group.stepper.update()
        recorder.program = 0
        group.stepper.update()
    assert any("reads back" in conflict for conflict in recorder.conflicts())


@pytest.mark.parametrize("seed", [0, 1])
def test_program_order_does_not_change_a_bit(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs in a random order give the bits of programs in sequence; the planted kernel does not."""
    in_order = outcome(stepped())
    with shuffled(monkeypatch, seed):
        assert equal(outcome(stepped()), in_order)
    monkeypatch.setattr(window_module, "old_values", halo_from_state)
    assert not equal(outcome(stepped()), in_order)


def test_halo_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the halo the outcome is another one: the comparisons of this file can fail."""
    right = outcome(stepped())
    monkeypatch.setattr(window_module, "old_values", no_halo)
    assert not equal(outcome(stepped()), right)


@pytest.mark.parametrize("block", [64, 256, 512])
def test_tile_size_does_not_change_a_bit(block: int) -> None:
    """Direction, momentum and stats have the same bits whatever the tile; only the norms' summation order follows it."""
    group, other = stepped(), stepped(block=block)
    assert len(group.stepper.table.tiles) != len(other.stepper.table.tiles)
    assert equal(outcome(group), outcome(other))
    torch.testing.assert_close(group.stepper.table.scales, other.stepper.table.scales, rtol=2e-7, atol=0)
