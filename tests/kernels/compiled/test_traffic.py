"""Traffic: the loads and stores in the machine code are those that `sonew_kernels.traffic` declares, in number and width."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import pytest

from sonew_autotune.compiler.kernel import KERNELS, TARGETS, Compiled, Dtypes, compile_kernel
from sonew_kernels.spec import SPECS, STORAGE_BYTES, SUPPORTED_BANDS
from sonew_kernels.traffic import Case, Row, traffic
from tests.kernels.interpreter.mutants import load_kernels
from tests.kernels.traffic_faults import FAULTS

FLOAT32: Final = Dtypes()
BFLOAT16: Final = Dtypes(*("bfloat16",) * 4)
BF16_STATE: Final = Dtypes(state="bfloat16", direction="bfloat16")


def case_of(band: int, dtypes: Dtypes, *, chained: bool = False, stochastic: bool = False) -> Case:
    """The traffic's case for storage types."""
    param, grad, state, direction = (STORAGE_BYTES[dtype] for dtype in dtypes)
    return Case(band=band, param=param, grad=grad, state=state, direction=direction, chained=chained, stochastic=stochastic)


def instructions(rows: Iterable[Row], threads: int) -> tuple[Counter[int], Counter[int]]:
    """(least, most) instructions of a thread, by width in bytes."""
    least: Counter[int] = Counter()
    most: Counter[int] = Counter()
    for row in rows:
        once = row.instructions(threads)
        least += once
        most += Counter({width: row.layouts * count for width, count in once.items()})
    return least, most


def differences(compiled: Compiled, rows: Iterable[Row]) -> list[str]:
    """Where the machine code's loads and stores are not the rows'. AMD's scalar loads are not among those that are counted.

    Of the prologue's stores to border records AMD's compiler puts the last one into both arms of a branch at bands 1 and 2.
    """
    used, amd = compiled.resources, compiled.target.startswith("hip")
    counted = [row for row in rows if row.write or not (amd and row.lanes == 1)]
    found = []
    for write, actual in ((False, used.load_widths), (True, used.store_widths)):
        least, most = instructions((row for row in counted if row.write == write), used.threads)
        if write and amd and compiled.kernel == "prologue" and compiled.band in (1, 2):
            most[min(most)] += 1
        found += [
            f"{'stores' if write else 'loads'} of {width} bytes: {actual.get(width, 0)}, declared {least[width]} to {most[width]}"
            for width in sorted({*actual, *least})
            if not least[width] <= actual.get(width, 0) <= most[width]
        ]
    return found


def compiled_differences(kernel: str, band: int, target: str, dtypes: Dtypes, **facts: bool) -> list[str]:
    """The differences of a kernel at its default configuration."""
    compiled = compile_kernel(kernel, SPECS["triton"].default(band), band, target, dtypes=dtypes, **facts)  # type: ignore[arg-type]
    return differences(compiled, traffic(kernel, case_of(band, dtypes, **facts)))


TYPES: Final = {"float32": FLOAT32, "bfloat16": BFLOAT16, "bfloat16 state": BF16_STATE}
FIRST: Final = ("cuda:90", "hip:gfx942")
QUICK: Final = {(band, "float32", target) for band in (0, 1, 4) for target in FIRST} | {(1, "bfloat16", "cuda:90")}
MATRIX: Final = [
    pytest.param(band, dtypes, target, marks=() if (band, name, target) in QUICK else pytest.mark.full, id=f"{band}-{name}-{target}")
    for target in TARGETS
    for band in SUPPORTED_BANDS
    for name, dtypes in TYPES.items()
    if target in FIRST or (name == "float32" and band < 16)
]
"""Float32 at bands 0, 1, 4 on one target of each vendor, bfloat16 once; the rest is marked full. More targets of a vendor: float32 only."""


@pytest.mark.parametrize(("band", "dtypes", "target"), MATRIX)
def test_machine_code_moves_what_is_declared(band: int, dtypes: Dtypes, target: str) -> None:
    """Every kernel of a step: no load or store more, fewer or narrower."""
    found = {kernel: compiled_differences(kernel, band, target, dtypes) for kernel in KERNELS}
    assert not any(found.values()), found


@pytest.mark.parametrize("target", FIRST)
def test_options_that_read_more_of_the_table(target: str) -> None:
    """Chains inside tensors and stochastic rounding of parameters each use numbers that are left out otherwise."""
    assert compiled_differences("direction", 1, target, FLOAT32, chained=True) == []
    assert compiled_differences("update", 1, target, BFLOAT16, stochastic=True) == []
    plain: Mapping[int, int] = instructions(traffic("update", case_of(1, BFLOAT16)), 128)[0]
    rounded: Mapping[int, int] = instructions(traffic("update", case_of(1, BFLOAT16, stochastic=True)), 128)[0]
    assert (rounded[8] - plain[8], rounded[4] - plain[4]) == (2, 2)


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("target", FIRST)
def test_added_traffic_is_found(name: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that loads more than declared, planted in a copy of the source, fails the comparison above."""
    kernel, _, fault = FAULTS[name]
    load_kernels(tmp_path, monkeypatch, fault)
    found = compiled_differences(kernel, 1, target, FLOAT32)
    assert len(found) == 1
    assert found[0].startswith("loads of 4 bytes")


def test_wider_and_narrower_accesses_are_told_apart() -> None:
    """Two entries by one access, or one entry by two, is a difference although the bytes are the same."""
    row = Row(array="param", size=4, per="element", accesses=1, unique=1, blocks=(1,), lanes=1024, widths=(4, 16))
    assert row.instructions(128) == {4: 8, 16: 2}
    assert row.instructions(512) == {4: 2, 8: 1}
    assert row.instructions(1024) == {4: 2}
    half = Row(array="param", size=2, per="element", accesses=1, unique=1, blocks=(1,), lanes=1024, widths=(2, 16))
    assert half.instructions(128) == {2: 8, 16: 1}
    block = Row(array="stats", size=4, per="element", accesses=17, unique=17, blocks=(17,), lanes=128)
    assert (block.instructions(128), block.instructions(256)) == ({4: 17}, {4: 9})
