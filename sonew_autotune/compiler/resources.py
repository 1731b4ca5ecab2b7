"""What a compiled program takes of a GPU, read from its machine code: registers, spills, shared memory, access widths, occupancy."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from sonew.errors import UnsupportedProblemError


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What the ranking needs to know of a processor (a streaming multiprocessor or compute unit), from the vendor's data sheets.

    Attributes:
        registers: 32-bit registers. warps: warps it holds at most. shared: bytes of shared memory.
        issue: warp instructions per clock. bytes_per_clock: its share of the memory bandwidth.
        latency: clocks of one trip to memory under load.
    """

    registers: int
    warps: int
    shared: int
    issue: int
    bytes_per_clock: float
    latency: int
    warp_size: int = 32


ARCHITECTURES: Final[Mapping[str, Architecture]] = {
    "cuda:80": Architecture(registers=65536, warps=64, shared=167936, issue=4, bytes_per_clock=13, latency=700),  # A100 80GB
    "cuda:90": Architecture(registers=65536, warps=64, shared=233472, issue=4, bytes_per_clock=14, latency=800),  # H100 SXM
    "cuda:100": Architecture(registers=65536, warps=64, shared=233472, issue=4, bytes_per_clock=28, latency=900),  # B200
    "hip:gfx942": Architecture(
        registers=131072, warps=32, shared=65536, issue=4, bytes_per_clock=8.3, latency=1100, warp_size=64
    ),  # MI300X
}
FALLBACK_ARCHITECTURE: Final = Architecture(registers=65536, warps=48, shared=102400, issue=4, bytes_per_clock=5, latency=700)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one program of a compiled kernel takes.

    Attributes:
        registers: per thread. spill_store_bytes, spill_load_bytes: per thread, over all spill instructions.
        shared_bytes: per program. threads: per program. instructions: in the program's text.
        load_widths, store_widths: bytes per thread of each access to global memory, with how many instructions have it.
        occupancy: share of the processor's warps that fit at once.
    """

    registers: int
    spill_store_bytes: int
    spill_load_bytes: int
    shared_bytes: int
    threads: int
    instructions: int
    load_widths: Mapping[int, int]
    store_widths: Mapping[int, int]
    occupancy: float


SASS_INSTRUCTION: Final = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")


def _sass_width(opcode: str) -> int:
    """Bytes per thread of a SASS memory instruction: LDG.E is 4, LDG.E.128 is 16, LDG.E.U16 is 2."""
    for part in opcode.split(".")[1:]:
        if match := re.fullmatch(r"[US]?(8|16|64|128)", part):
            return int(match[1]) // 8
    return 4


def nvidia_resources(usage: str, sass: str, shared: int, threads: int, target: str) -> Resources:
    """Resources from the output of cuobjdump and nvdisasm; `shared` bytes and `threads` per program come from the launch."""
    registers = int(re.findall(r"\bREG:(\d+)", usage)[-1])
    opcodes = Counter(SASS_INSTRUCTION.findall(sass))

    def widths(*families: str) -> Counter[int]:
        found: Counter[int] = Counter()
        for opcode, times in opcodes.items():
            if opcode.split(".")[0] in families:
                found[_sass_width(opcode)] += times
        return found

    def total(family: str) -> int:
        return sum(width * times for width, times in widths(family).items())

    useful = sum(times for opcode, times in opcodes.items() if opcode.split(".")[0] != "NOP")
    return Resources(
        registers=registers,
        spill_store_bytes=total("STL"),
        spill_load_bytes=total("LDL"),
        shared_bytes=shared,
        threads=threads,
        instructions=useful,
        load_widths=dict(sorted(widths("LDG").items())),
        store_widths=dict(sorted(widths("STG").items())),
        occupancy=_occupancy(target, registers, shared, threads // 32),
    )


AMD_WIDTHS: Final = {"ubyte": 1, "byte": 1, "ushort": 2, "short": 2, "dword": 4, "dwordx2": 8, "dwordx3": 12, "dwordx4": 16}


def amd_resources(assembly: str, shared: int, threads: int, target: str) -> Resources:
    """Resources from the assembly text and its comments; `shared` bytes and `threads` per program come from the launch.

    Raises:
        UnsupportedProblemError: the text lacks a line that Triton 3.6 and 3.7 write, or has accesses of another architecture.
    """

    def number(pattern: str) -> int:
        found = re.search(pattern, assembly)
        if found is None:
            msg = f"the assembly for {target} has no line matching {pattern!r}: this Triton version writes another format"
            raise UnsupportedProblemError(msg)
        return int(found[1])

    def widths(verb: str) -> Counter[int]:
        kinds = re.findall(rf"^\s+(?:global|buffer|flat)_{verb}_([a-z]+\d*)", assembly, re.MULTILINE)
        if unknown := sorted(set(kinds) - set(AMD_WIDTHS)):
            msg = f"the assembly for {target} accesses memory by {unknown}, none of {list(AMD_WIDTHS)}: this architecture is not read yet"
            raise UnsupportedProblemError(msg)
        return Counter(AMD_WIDTHS[kind] for kind in kinds)

    registers = number(r"\.vgpr_count:\s*(\d+)")
    waves = number(r";\s*Occupancy:\s*(\d+)")
    spilled = 4 * number(r"\.vgpr_spill_count:\s*(\d+)")
    return Resources(
        registers=registers,
        spill_store_bytes=spilled,
        spill_load_bytes=spilled,
        shared_bytes=shared,
        threads=threads,
        instructions=len(re.findall(r"^\s+(?:v|s|ds|global|buffer|flat|scratch)_\w+", assembly, re.MULTILINE)),
        load_widths=dict(sorted(widths("load").items())),
        store_widths=dict(sorted(widths("store").items())),
        occupancy=waves * 4 / architecture(target).warps,
    )


@cache
def architecture(target: str) -> Architecture:
    """The target's processor; an unlisted one is taken for a small consumer GPU."""
    return ARCHITECTURES.get(target, FALLBACK_ARCHITECTURE)


def _occupancy(target: str, registers: int, shared: int, warps: int) -> float:
    """Share of an NVIDIA processor's warps that fit; registers go to a warp by 256, each program takes 1 KiB more shared memory."""
    chip = architecture(target)
    per_warp = -(-registers * 32 // 256) * 256
    programs = min(chip.registers // (per_warp * warps), chip.warps // warps, chip.shared // (shared + 1024), 32)
    return programs * warps / chip.warps
