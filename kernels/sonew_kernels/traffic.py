"""Memory traffic of the Triton kernels as data: what each launch reads and writes of each array. Plain data, no framework.

Two tests hold it: one counts the addresses that the interpreted kernels touch, one the loads and stores in the machine code. So a change
that moves more bytes changes a row here or fails, without a GPU. Arrays have the names of the kernels' arguments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from sonew_kernels.spec import LARGEST_UNROLLED_LOAD, SPECS, TritonLaunch, border_record, triton_launches

Unit = Literal["element", "border", "tile", "tensor", "program"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How one kernel reads or writes one array.

    Attributes:
        array: the kernel's argument. write: whether it is written.
        size: bytes of an entry.
        per: what `accesses` and `unique` are counted for. A border lies between two tiles; what the programs on both sides touch counts.
        accesses: entries that the source asks for, with repeats. unique: different entries, which DRAM must move.
        blocks: the machine's instructions as blocks of `lanes` columns; each number is a block's height. None where the instruction
            is another row's: a pointer that chooses between two arrays is loaded once.
        lanes: columns that a program's threads share. 1: a value for the whole program; AMD reads it by scalar instructions.
        widths: bytes of the widest access, one number for each path through the code; () stands for the entry's size.
        layouts: most times the machine repeats the instruction, once for each layout of its threads that needs the values.
    """

    array: str
    size: int
    per: Unit
    accesses: int
    unique: int
    blocks: tuple[int, ...] = ()
    write: bool = False
    lanes: int = 1
    widths: tuple[int, ...] = ()
    layouts: int = 1

    def instructions(self, threads: int) -> Counter[int]:
        """How many instructions of each width in bytes a thread executes at least, in a program of so many threads."""
        counts: Counter[int] = Counter()
        entries = sum(-(-height * self.lanes // threads) for height in self.blocks)
        for width in self.widths or (self.size,):
            together = max(1, min(width // self.size, entries))
            counts[min(width, together * self.size)] += entries // together
        return +counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What traffic depends on, with the table entry and a graft.

    Attributes:
        band: off-diagonals.
        param, grad, state, direction: bytes of an entry. A state of 2 bytes is rounded stochastically.
        chained: some chain ends inside its tensor. pieces: some piece is not a whole tensor.
        stochastic: parameters are bfloat16 and rounded stochastically.
    """

    band: int
    param: int = 4
    grad: int = 4
    state: int = 4
    direction: int = 4
    chained: bool = False
    pieces: bool = False
    stochastic: bool = False


def _numbers(
    array: str,
    count: int,
    *,
    used: int | None = None,
    unique: int | None = None,
    per: Unit = "program",
    size: int = 4,
    lanes: int = 1,
    layouts: int = 1,
    write: bool = False,
) -> Row:
    """Single numbers; the compiler leaves out the loads of those that are not `used`. `unique`: where it is not their count."""
    blocks = (1,) * (count if used is None else used)
    different = count if unique is None else unique
    return Row(array=array, size=size, per=per, accesses=count, unique=different, blocks=blocks, lanes=lanes, layouts=layouts, write=write)


def _cells(
    count: int, *, used: int | None = None, unique: int | None = None, per: Unit = "program", lanes: int = 1, layouts: int = 1
) -> Row:
    """Cells of a tensor's row of the table."""
    return _numbers("rows", count, used=used, unique=unique, per=per, size=8, lanes=lanes, layouts=layouts)


def _seed(*, used: bool) -> Row:
    """A tensor's seed, of whose cell only the low half is loaded."""
    return Row(array="rows", size=8, per="program", accesses=1, unique=1, blocks=(1,) * used, widths=(4,))


def _prologue(case: Case, launch: TritonLaunch) -> tuple[Row, ...]:
    """Count the steps, copy momentum and stats around every border."""
    borders = launch.constants["BORDERS"]
    fields, positions = border_record(case.band)
    layouts = 5 if case.band else 1
    rows = (
        _numbers("tiles", 1, per="tile", lanes=borders, layouts=layouts),
        # All lanes of a tensor read its cells: ACTIVE, FIRST_TILE for each tile, LENGTH, MOMENTUM, STATS for each border, COUNT once.
        _cells(2, unique=0, per="tile", lanes=borders, layouts=layouts),
        _cells(1, unique=6 if case.band else 3, per="tensor", lanes=borders),
        _numbers("count", 1, per="tensor", lanes=borders),
        _numbers("hyper", 1),  # SKIP
        _numbers("hyper", 2, lanes=borders),  # behind a store, where AMD has no scalar loads
        _numbers("count", 1, per="tensor", lanes=borders, write=True),
        _numbers("corrections", 2, per="tensor", lanes=borders, write=True),
    )
    if case.band == 0:
        return rows

    def copied(array: str, count: int, *, write: bool = False) -> Row:
        entries, lanes = count * positions, borders * launch.constants["POSITIONS"]
        return Row(
            array=array, size=case.state, per="border", accesses=entries, unique=entries, blocks=(1,) * count, lanes=lanes, write=write
        )

    cells = _cells(3, unique=0, per="border", lanes=borders, layouts=layouts)
    return (*rows, cells, copied("momentum", 1), copied("stats", fields - 1), copied("edges", fields, write=True))


def _direction(case: Case, launch: TritonLaunch) -> tuple[Row, ...]:
    """Read gradient and state with their halos; write state, direction and partial norms.

    Every array is loaded at each offset 0..band. So an element is asked for (band + 1) times, row k of stats (band + 1 - k) times,
    and per tile and offset `band` lanes fall beyond the tile: gradients there are read in place, the state from border records.
    """
    band, lanes = case.band, launch.constants["BLOCK"]
    offsets, window = band + 1, (band + 1) * (band + 2) // 2
    unrolled = band <= LARGEST_UNROLLED_LOAD
    by_offset = (1,) * offsets if unrolled else (offsets,)
    by_window = (1,) * window if unrolled else (*range(1, offsets), offsets)
    left, right = band * (band + 2), band + band * (band + 1) // 2  # on the right only what windows of the tile reach
    rounded = case.state == 2

    def read(array: str, size: int, accesses: int, unique: int, blocks: tuple[int, ...], per: Unit = "element") -> Row:
        return Row(array=array, size=size, per=per, accesses=accesses, unique=unique, blocks=blocks, lanes=lanes)

    def written(array: str, size: int, entries: int, blocks: tuple[int, ...]) -> Row:
        return Row(array=array, size=size, per="element", accesses=entries, unique=entries, blocks=blocks, lanes=lanes, write=True)

    state = (
        # Above the unrolled bands one block holds all rows of the state.
        written("momentum", case.state, 1, (1,) if unrolled else ()),
        written("stats", case.state, offsets, (1,) * offsets if unrolled else (band + 2,)),
    )
    return (
        read("grad", case.grad, offsets, 1, by_offset),
        read("momentum", case.state, offsets, 1, by_offset),
        read("stats", case.state, window, offsets, by_window),
        read("grad", case.grad, offsets * band, 2 * band, (), "border"),
        read("edges", case.state, (offsets + window) * band, left + right, (), "tile"),
        *((read("outer", 4, offsets * band, 2 * band, by_offset, "tensor"),) if case.pieces and band else ()),
        *state,
        written("direction", case.direction, 1, (1,)),
        _numbers("partials", 2, size=8, write=True),
        _numbers("tiles", 1),
        _cells(11, used=9 + case.chained + rounded),  # all but PARAM, FIRST_UPDATE_TILE and SEED; CHAIN and COUNT are not always used
        _seed(used=rounded),
        _numbers("count", 1, used=int(rounded)),
        _numbers("hyper", 9, used=9 if band else 8),  # all but LR, WEIGHT_DECAY and the logarithms; no pivot to judge by gamma at band 0
        _numbers("corrections", 2),
    )


def _norms(case: Case, launch: TritonLaunch) -> tuple[Row, ...]:  # noqa: ARG001  # one signature for all kernels
    """Sum the partial norms of a tensor's tiles, two blocks at once."""
    lanes = launch.constants["BLOCK"]
    return (
        Row(array="partials", size=8, per="tile", accesses=2, unique=2, blocks=(1, 1, 1, 1), lanes=lanes),
        _numbers("scales", 1, per="tensor", write=True),
        _cells(3, per="tensor"),  # ACTIVE, LENGTH, FIRST_TILE
    )


def _update(case: Case, launch: TritonLaunch) -> tuple[Row, ...]:
    """Read direction and parameter, write the parameter: by 16 bytes where a tile is full and aligned, else by single elements."""
    lanes = launch.constants["BLOCK"]

    def stream(array: str, size: int, *, write: bool = False) -> Row:
        return Row(array=array, size=size, per="element", accesses=1, unique=1, blocks=(1,), lanes=lanes, widths=(size, 16), write=write)

    return (
        stream("param", case.param),
        stream("direction", case.direction),
        stream("param", case.param, write=True),
        _numbers("update_tiles", 1),
        _cells(7, used=5 + 2 * case.stochastic),  # ACTIVE, PARAM, OFFSET, FIRST_UPDATE_TILE, LENGTH; START and COUNT where rounded
        _seed(used=case.stochastic),
        _numbers("count", 1, used=int(case.stochastic)),
        _numbers("scales", 1),
        _numbers("lr", 1),
        _numbers("hyper", 2),  # WEIGHT_DECAY, SKIP
    )


TRAFFIC: Final[Mapping[str, Callable[[Case, TritonLaunch], tuple[Row, ...]]]] = {
    "prologue": _prologue,
    "direction": _direction,
    "norms": _norms,
    "update": _update,
}


def traffic(kernel: str, case: Case, config: Mapping[str, int] | None = None) -> tuple[Row, ...]:
    """Rows of one kernel of `TRAFFIC` under a configuration of the Triton family, by default the band's own."""
    chosen = SPECS["triton"].default(case.band) if config is None else config
    return TRAFFIC[kernel](case, triton_launches(chosen, case.band)[kernel])


def bytes_per(unit: Unit, kernel: str, case: Case) -> int:
    """Bytes that a kernel must move per element, border, tile, tensor or program."""
    return sum(row.size * row.unique for row in traffic(kernel, case) if row.per == unit)


def direction_bytes(band: int, *, grad_bytes: int = 4, state_bytes: int = 4, direction_bytes: int = 4) -> int:
    """Bytes per element of the direction phase: read g, read and write momentum and stats, write the direction."""
    return bytes_per("element", "direction", Case(band=band, grad=grad_bytes, state=state_bytes, direction=direction_bytes))


def update_bytes(*, param_bytes: int = 4, direction_bytes: int = 4) -> int:
    """Bytes per element of the update phase: read the direction, read and write the parameter."""
    return bytes_per("element", "update", Case(band=0, param=param_bytes, direction=direction_bytes))
