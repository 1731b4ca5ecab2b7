"""The GPUs that can be compiled for, and what the static model knows of each: one product stands for each target.

Sources: NVIDIA's data sheets and architecture papers of the products named below, the table of compute capabilities in the CUDA
Programming Guide and the table of instruction throughputs in the CUDA Best Practices Guide; AMD's data sheets, the CDNA 3, CDNA 4 and
RDNA 3 papers and ROCm's table of GPU specifications. `latency` is in no data sheet: a round figure of published micro-benchmarks
under load, which may be wrong by a third.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from sonew.errors import InvalidConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A processor (a streaming multiprocessor or a compute unit) of the product that stands for a target.

    Attributes:
        chip: the product. processors: how many it has. clock: in GHz. bandwidth: of its memory, in GB/s.
        latency: clocks of a trip to memory.
        registers: 32-bit registers of a processor. registers_per_thread: at most.
        shared: bytes of shared memory of a processor. shared_per_program: that a program may have. shared_overhead: taken besides.
        warps, programs: that a processor holds at most. simds: its parts, each with warps of its own.
        issue: warp instructions per clock. rates: of classes (`resources.CLASSES`) whose unit is slower. beside: classes not counted
            in `issue`, as other units take them.
    """

    chip: str
    processors: int
    clock: float
    bandwidth: float
    latency: float
    registers: int
    registers_per_thread: int
    shared: int
    shared_per_program: int
    shared_overhead: int = 0
    warps: int
    programs: int = 32
    simds: int = 4
    warp_size: int
    issue: float
    rates: Mapping[str, float]
    beside: frozenset[str] = frozenset()

    @property
    def bytes_per_clock(self) -> float:
        """A processor's share of the memory bandwidth."""
        return self.bandwidth / (self.processors * self.clock)


THREADS_PER_PROGRAM: Final = 1024  # of every target
KIB: Final = 1024


A100: Final = Architecture(
    chip="A100 80GB SXM",
    processors=108,
    clock=1.41,
    bandwidth=2039,
    latency=700,
    registers=65536,
    registers_per_thread=255,
    shared=164 * KIB,
    shared_per_program=163 * KIB,
    shared_overhead=KIB,
    warps=64,
    warp_size=32,
    issue=4,
    # Integers: 2 on the unit of additions, logic and comparisons; multiply-adds, a third of them in these kernels, have another.
    rates={"float": 2, "integer": 3, "double": 1, "conversion": 0.5, "special": 0.5, "exchange": 1, "shared": 1},
)
H100: Final = replace(
    A100,
    chip="H100 SXM",
    processors=132,
    clock=1.83,
    bandwidth=3350,
    latency=800,
    shared=228 * KIB,
    shared_per_program=227 * KIB,
    rates={**A100.rates, "float": 4, "double": 2},
)
B200: Final = replace(H100, chip="B200", processors=148, clock=1.965, bandwidth=8000, latency=900)
RTX_5090: Final = replace(
    H100,
    chip="GeForce RTX 5090",
    processors=170,
    clock=2.407,
    bandwidth=1792,
    latency=900,
    shared=100 * KIB,
    shared_per_program=99 * KIB,
    warps=48,
    programs=24,
    rates={**H100.rates, "integer": 4, "double": 1 / 16},
)
MI300X: Final = Architecture(
    chip="Instinct MI300X",
    processors=304,
    clock=2.1,
    bandwidth=5300,
    latency=1100,
    registers=131072,
    registers_per_thread=512,
    shared=64 * KIB,
    shared_per_program=64 * KIB,
    warps=32,
    warp_size=64,
    issue=1,
    rates={"special": 0.25, "shared": 0.5},
    beside=frozenset({"scalar", "branch", "barrier", "wait"}),
)
MI355X: Final = replace(
    MI300X, chip="Instinct MI355X", processors=256, clock=2.4, bandwidth=8000, shared=160 * KIB, shared_per_program=160 * KIB
)
RX_7900_XTX: Final = replace(
    MI300X,
    chip="Radeon RX 7900 XTX",
    processors=96,
    clock=2.5,
    bandwidth=960,
    latency=1000,
    registers=98304,
    registers_per_thread=256,
    simds=2,
    warp_size=32,
    issue=2,
    rates={"double": 1 / 8, "special": 0.5, "shared": 1},
)
ARCHITECTURES: Final[Mapping[str, Architecture]] = {
    "cuda:80": A100,
    "cuda:90": H100,
    "cuda:100": B200,
    "cuda:120": RTX_5090,
    "hip:gfx942": MI300X,
    "hip:gfx950": MI355X,
    "hip:gfx1100": RX_7900_XTX,
}
TARGETS: Final = tuple(ARCHITECTURES)
"""Compiled and checked by the tests; others may work, see `architecture`."""


def parse_target(target: str) -> tuple[str, int | str, int]:
    """(backend, architecture, warp size) of a target such as "cuda:90" or "hip:gfx942".

    Raises:
        InvalidConfigError: not of that form.
    """
    if match := re.fullmatch(r"cuda:(\d{2,3})", target):
        return "cuda", int(match[1]), 32
    if match := re.fullmatch(r"hip:(gfx\d+[0-9a-f]*)", target):
        return "hip", match[1], 64 if match[1].startswith("gfx9") else 32
    msg = f"target={target!r} is not of the form cuda:<capability> or hip:<architecture>. Use for example one of {list(TARGETS)}."
    raise InvalidConfigError(msg)


@cache
def architecture(target: str) -> Architecture:
    """The target's processor. An unlisted one is taken for the smallest listed one of its vendor with the same warps."""
    stand_ins = {("cuda", 32): RTX_5090, ("hip", 64): MI300X, ("hip", 32): RX_7900_XTX}
    if target in ARCHITECTURES:
        return ARCHITECTURES[target]
    backend, _, warp_size = parse_target(target)
    return stand_ins[backend, warp_size]


DOUBT: Final = 1 / 3  # how far a number of an `Architecture` may be from what a kernel sees


@cache
def doubted(target: str) -> tuple[Architecture, ...]:
    """The target's processor with its latency, its bandwidth or its rates of issue larger, and smaller, by the doubt there is of them."""
    chip = architecture(target)
    factors = (1 + DOUBT, 1 - DOUBT)
    return (
        *(replace(chip, latency=chip.latency * factor) for factor in factors),
        *(replace(chip, bandwidth=chip.bandwidth * factor) for factor in factors),
        *(replace(chip, issue=chip.issue * factor, rates={name: rate * factor for name, rate in chip.rates.items()}) for factor in factors),
    )
