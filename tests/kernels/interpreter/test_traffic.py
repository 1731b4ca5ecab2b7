"""Traffic: what the interpreted kernels touch of each array is what `sonew_kernels.traffic` declares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pytest
import torch

from sonew.config import Hyper
from sonew_kernels.spec import Slot, border_record
from sonew_kernels.traffic import TRAFFIC, Case, Unit, bytes_per, direction_bytes, traffic, update_bytes
from tests.kernels.interpreter.harness import Group, config
from tests.kernels.interpreter.joined import Joined, Part
from tests.kernels.interpreter.mutants import load_kernels
from tests.kernels.interpreter.recorder import Recorder, watched
from tests.kernels.traffic_faults import FAULTS

BLOCK: Final = 128
UPDATE_BLOCK: Final = 256
TILES: Final = 4
BF16: Final = torch.bfloat16


class Touched(NamedTuple):
    """Of one array: entries asked for, with repeats, and different bytes."""

    accesses: int
    unique: int


Touches = dict[tuple[str, bool], Touched]  # by array, and whether it is written


def touched(recorder: Recorder, arrays: Mapping[str, torch.Tensor], program: int | None = None) -> Touches:
    """What one program of a launch, or all of them together, touches of each array."""
    ends = {name: (tensor.data_ptr(), tensor.data_ptr() + tensor.numel() * tensor.element_size()) for name, tensor in arrays.items()}
    accesses: Counter[tuple[str, bool]] = Counter()
    granules: dict[tuple[str, bool], list[np.ndarray]] = {}
    for access in recorder.accesses:
        if access.addresses.size and program in (None, access.program):
            low, high = access.addresses.min(), access.addresses.max()
            inside = [name for name, (start, end) in ends.items() if start <= high and low < end]
            rest = access.addresses.size
            for name in inside:
                start, end = ends[name]
                mine = access._replace(addresses=access.addresses[(access.addresses >= start) & (access.addresses < end)])
                accesses[name, access.write] += mine.addresses.size
                granules.setdefault((name, access.write), []).append(mine.granules)
                rest -= mine.addresses.size
            assert rest == 0, f"{rest} addresses lie in no array"
    return {key: Touched(count, 2 * np.unique(np.concatenate(granules[key])).size) for key, count in accesses.items() if count}


def declared(kernel: str, case: Case, units: Mapping[Unit, int]) -> Touches:
    """What the rows say for so many elements, borders and so on; `unique` counts entries once for each border."""
    total: dict[tuple[str, bool], Touched] = {}
    for row in traffic(kernel, case, config(BLOCK, UPDATE_BLOCK).as_dict()):
        times = units.get(row.per, 0)
        had = total.get((row.array, row.write), Touched(0, 0))
        total[row.array, row.write] = Touched(had.accesses + times * row.accesses, had.unique + times * row.unique * row.size)
    return {key: value for key, value in total.items() if value.accesses}


def arrays_of(group: Group) -> dict[str, torch.Tensor]:
    """The arrays of a group of one tensor, by the kernels' names."""
    leaf, table = group.leaves[0], group.stepper.table
    names = ("rows", "tiles", "update_tiles", "hyper", "lr", "corrections", "edges", "outer", "direction", "partials", "scales")
    buffers = {name: getattr(table, name) for name in names}
    state = {name: getattr(leaf, name) for name in ("param", "momentum", "stats", "count")}
    return {**buffers, **state, "grad": group.grads[0]}


def stepped(case: Case, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Recorder], dict[str, torch.Tensor], int]:
    """(accesses of every launch of one step, the arrays, the elements) of one tensor of three tiles and a half."""
    types = {2: BF16, 4: torch.float32}
    sizes = {"param": case.param, "grad": case.grad, "state": case.state, "direction": case.direction}
    total = int((TILES - 0.5) * (BLOCK - case.band))
    hyper = Hyper(band=case.band, stochastic_rounding=case.stochastic)
    group = Group((total,), hyper, block=BLOCK, steps=1, **{f"{name}_dtype": types[size] for name, size in sizes.items()})  # type: ignore[arg-type]
    group.stepper.set_hyper(hyper, torch.tensor([hyper.lr]))
    recorders = {}
    for kernel in TRAFFIC:
        with watched(monkeypatch) as recorders[kernel]:
            getattr(group.stepper, kernel)()
    return recorders, arrays_of(group), total


def units_of(kernel: str, case: Case) -> tuple[int, dict[Unit, int]]:
    """(a program that no end of the tensor cuts short, what it owns)."""
    programs: dict[str, tuple[int, dict[Unit, int]]] = {
        "prologue": (0, {"tile": TILES, "border": TILES - 1, "tensor": 1, "program": 1}),
        "direction": (1, {"element": BLOCK - case.band, "border": 1, "tile": 1, "program": 1}),  # half of each of two borders
        "norms": (0, {"tile": TILES, "tensor": 1}),
        "update": (0, {"element": UPDATE_BLOCK, "program": 1}),
    }
    return programs[kernel]


CASES: Final = (
    Case(band=0),
    Case(band=1, param=2, grad=2, state=2, direction=2, stochastic=True),
    Case(band=4, grad=2),
    Case(band=8, state=2),
    Case(band=16, direction=2, state=2),
    *(pytest.param(Case(band=band, state=size, direction=size), marks=pytest.mark.full) for band in range(9) for size in (2, 4)),
    pytest.param(Case(band=16), marks=pytest.mark.full),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_programs_touch_what_is_declared(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accesses and different bytes of every array in every launch, for a program inside the tensor."""
    recorders, arrays, total = stepped(case, monkeypatch)
    for kernel, recorder in recorders.items():
        program, units = units_of(kernel, case)
        assert touched(recorder, arrays, program) == declared(kernel, case, units), kernel

    # All programs together move each element once; an entry of stats that reaches past the chain's end is written, not read.
    band, launch = case.band, touched(recorders["direction"], arrays)
    past = band * (band + 1) // 2
    streams = {key: launch[key].unique for key in launch if key[0] in ("grad", "momentum", "stats", "direction")}
    assert sum(streams.values()) == total * bytes_per("element", "direction", case) - past * case.state
    assert streams["grad", False] == total * case.grad
    assert streams["stats", False] == ((band + 1) * total - past) * case.state
    step = touched(recorders["update"], arrays)
    assert sum(step[key].unique for key in step if key[0] in ("param", "direction")) == total * bytes_per("element", "update", case)


@pytest.mark.parametrize("name", FAULTS)
def test_added_traffic_is_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that loads more than declared, planted in a copy of the source, fails the comparison above, at that array only."""
    kernel, array, fault = FAULTS[name]
    case = Case(band=2)
    load_kernels(tmp_path, monkeypatch, fault)
    recorders, arrays, _ = stepped(case, monkeypatch)
    program, units = units_of(kernel, case)
    found, expected = touched(recorders[kernel], arrays, program), declared(kernel, case, units)
    more = {read for read, write in expected if found[read, write].accesses > expected[read, write].accesses}
    assert more == ({array, "edges"} if array == "momentum" else {array})  # momenta beyond the tile come from records


@pytest.mark.parametrize("band", [1, 3])
def test_piece_reads_its_neighbours_from_records_and_outer_gradients(band: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All programs of a piece in the midst of a tensor: no element beyond the piece is read from an array of the tensor."""
    tile, case = BLOCK - band, Case(band=band, pieces=True)
    length = 2 * tile
    ones, beyond = torch.ones(band + 1, length), torch.ones(2, band + 3, band)
    part = Part(grad=ones[0], momentum=ones[0], stats=ones, chain=5000, total=5000, number=3, outside=beyond)
    joined = Joined([part], torch.ones(len(Slot)), 1, pieces=True)
    arrays = {name: getattr(joined, name) for name in ("grad", "momentum", "stats", "edges", "direction")}
    arrays["outer"] = joined.outer_grads
    others = {name: getattr(joined, name) for name in ("corrections", "slots", "count", "rows", "tiles", "numbers", "partials")}
    with watched(monkeypatch) as prologue:
        joined.prologue()
    with watched(monkeypatch) as direction:
        joined.direct(in_place=True)

    found = touched(direction, {**arrays, **others})
    expected = declared("direction", case, {"element": length, "border": 1, "tile": 2, "tensor": 1})
    # A border's gradients are its tiles' own too, so here, over all programs, they are no bytes beyond the elements'.
    shared = expected["grad", False]
    expected["grad", False] = shared._replace(unique=shared.unique - 2 * band * case.grad)
    assert {key: value for key, value in found.items() if key[0] in arrays} == expected
    assert found["numbers", False] == Touched(2, 4)

    copied = touched(prologue, {**arrays, **others, "outer": joined.outer_state})
    fields, positions = border_record(band)
    border, ends = (Touched(entries, 4 * entries) for entries in (positions, fields * positions))
    state = {("momentum", False): border, ("stats", False): Touched((band + 1) * positions, 4 * (band + 1) * positions)}
    edges = Touched(2 * ends.accesses, 2 * ends.unique)
    assert {key: value for key, value in copied.items() if key[0] in arrays} == {**state, ("outer", False): ends, ("edges", True): edges}


def test_bytes_per_element_are_known_numbers() -> None:
    """The formulas of the README: 8 b + 24 for the direction phase in float32, 12 for the update; 2 bytes an entry halve them."""
    assert [direction_bytes(band) for band in (0, 1, 4, 8, 16)] == [24, 32, 56, 88, 152]
    assert direction_bytes(1, grad_bytes=2, state_bytes=2, direction_bytes=2) == 16
    assert (update_bytes(), update_bytes(param_bytes=2, direction_bytes=2)) == (12, 6)
    assert bytes_per("border", "prologue", Case(band=4)) == 2 * 6 * 8 * 4  # a record of 6 x 8 entries, read and written
