"""Memory traffic of the Triton kernels as data: what each launch reads and writes of each array. Plain data, no framework.

Two tests hold it: one counts the addresses that the interpreted kernels touch, one the loads and stores in the machine code. So a change
that moves more bytes changes a row here or fails, without a GPU. Arrays have the names of the kernels' arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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
        per: what `accesses` and `unique` are counted for. A border lies between two tiles of one piece: both sides of it count.
        accesses: entries that the source asks for, with repeats. unique: different entries among them, which DRAM must move.
        blocks: the machine's instructions, as blocks of `lanes` columns; each number is a block's height. Empty where the instruction
            is another row's: a pointer that chooses between two arrays is loaded once.
        lanes: columns that a program's threads share; 1: one value for the whole program, which AMD reads by scalar instructions.
        widths: bytes of the widest access, one number per path through the code; () stands for the entry's size.
        layouts: most times the machine repeats the load, once per thread layout it wants the values in.
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

    def instructions(self, threads: int) -> dict[int, int]:
        """Instructions of one thread by the bytes each moves, for a program of so many threads."""
        counts: dict[int, int] = {}
        entries = sum(-(-rows * self.lanes // threads) for rows in self.blocks)
        for width in self.widths or (self.size,):
            together = max(1, min(width // self.size, entries))
            moved = min(width, together * self.size)
            counts[moved] = counts.get(moved, 0) + entries // together
        return {moved: count for moved, count in counts.items() if count}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What traffic depends on, in the table entry of whole tensors and with a graft.

    Attributes:
        band: off-diagonals.
        param, grad, state, direction: bytes of an entry; the state is rounded stochastically where it has 2.
        chained: some chain ends inside its tensor. stochastic: bfloat16 parameters are rounded stochastically.
        pieces: some piece is not a whole tensor (the direct entry only).
    """

    band: int
    param: int = 4
    grad: int = 4
    state: int = 4
    direction: int = 4
    chained: bool = False
    stochastic: bool = False
    pieces: bool = False


def _cells(per: Unit, *, loaded: int, used: int, lanes: int = 1, layouts: int = 1, rounding: bool = False) -> tuple[Row, ...]:
    """Cells of the table that the source loads, of which the compiler keeps `used`; of a seed, another one, it keeps the low half."""
    return (
        Row(array="rows", size=8, per=per, accesses=loaded, unique=loaded, blocks=(1,) * used, lanes=lanes, layouts=layouts),
        Row(array="rows", size=8, per=per, accesses=int(rounding), unique=int(rounding), blocks=(1,) * rounding, widths=(4,)),
    )


def _numbers(array: str, count: int, *, used: int | None = None, lanes: int = 1) -> Row:
    """Numbers of 4 bytes that every lane of a program shares; the compiler leaves out those that are not `used`."""
    kept = count if used is None else used
    return Row(array=array, size=4, per="program", accesses=count, unique=count, blocks=(1,) * kept, lanes=lanes)


def _prologue(case: Case, launch: TritonLaunch) -> tuple[Row, ...]:
    """Count the steps, and copy the momentum and stats around each border to its record."""
    band, borders = case.band, launch.constants["BORDERS"]
    fields, positions = border_record(band)
    lanes = borders * launch.constants["POSITIONS"]
    layouts = 3 if band else 1

    def copied(array: str, rows: int, *, write: bool = False) -> Row:
        entries = rows * positions
        return Row(
            array=array, size=case.state, per="border", accesses=entries, unique=entries, blocks=(1,) * rows, lanes=lanes, write=write
        )

    numbers = {"per": "tensor", "size": 4, "lanes": borders}
    return (
        Row(array="tiles", size=4, per="tile", accesses=1, unique=1, blocks=(1,), lanes=borders, layouts=layouts),
        *_cells("tile", loaded=2, used=2, lanes=borders, layouts=layouts)[:1],  # ACTIVE, FIRST_TILE
        *_cells("tensor", loaded=1, used=1, lanes=borders)[:1],  # COUNT
        *(_cells("border", loaded=3, used=3, lanes=borders, layouts=layouts)[:1] if band else ()),  # LENGTH, MOMENTUM, STATS
        _numbers("hyper", 2, lanes=borders),  # behind a store, where AMD has no scalar loads
        Row(array="count", accesses=1, unique=1, blocks=(1,), **numbers),
        Row(array="count", accesses=1, unique=1, blocks=(1,), write=True, **numbers),
        Row(array="corrections", accesses=2, unique=2, blocks=(1, 1), write=True, **numbers),
        *((copied("momentum", 1), copied("stats", fields - 1), copied("edges", fields, write=True)) if band else ()),
    )
