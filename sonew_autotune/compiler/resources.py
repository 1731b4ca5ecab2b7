"""What a compiled program takes of a GPU, read from its machine code: registers, spills, instructions, accesses, occupancy."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from sonew.errors import UnsupportedProblemError
from sonew_autotune.compiler.targets import Architecture, architecture

CLASSES: Final[Mapping[str, str]] = {
    "global_load": "loads from global memory, vector ones on AMD",
    "global_store": "stores to global memory",
    "local": "loads and stores of a thread's own memory: spills",
    "shared": "loads and stores of shared memory",
    "exchange": "values passed between threads of a warp: shuffles, gathers",
    "float": "float32, and narrower",
    "double": "float64, with conversions from and to it",
    "integer": "integers, addresses, selections, comparisons of integers",
    "conversion": "between types, float64 aside",
    "special": "reciprocals, roots, exponentials",
    "move": "copies between registers, constants",
    "scalar": "once for a warp: uniform registers on NVIDIA; loads and arithmetic of scalars on AMD",
    "branch": "jumps, calls, and what marks where they meet",
    "barrier": "waits for the other warps of the program",
    "wait": "AMD's waits for results",
    "other": "the rest",
}
"""The classes of the instruction mix, with what falls into each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one program of a compiled kernel takes. Counts are of the program's text: a loop's body and each of two paths count once.

    Attributes:
        registers: per thread. spill_store_bytes, spill_load_bytes: per thread, over all spill instructions.
        shared_bytes: per program. threads: per program. instructions: without padding.
        load_widths, store_widths: bytes per thread of each access to global memory, with how many instructions have it.
        occupancy: share of the processor's warps that fit at once, in whole programs.
        mix: how many of the instructions fall into each class of `CLASSES`, without empty ones.
        loaded_bytes, stored_bytes: to and from global memory per thread; repeats that a cache serves count. On AMD without scalar loads.
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
    mix: Mapping[str, int]
    loaded_bytes: int = field(init=False)
    stored_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        """Sum up the accesses."""
        for name, widths in (("loaded_bytes", self.load_widths), ("stored_bytes", self.store_widths)):
            object.__setattr__(self, name, sum(width * times for width, times in widths.items()))


def _mix(classes: Iterable[str]) -> dict[str, int]:
    counts = Counter(classes)
    return {name: counts[name] for name in CLASSES if counts[name]}


SASS_INSTRUCTION: Final = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
SASS_CLASSES: Final[Mapping[str, str]] = {
    "global_load": "LD LDG",
    "global_store": "ST STG",
    "local": "LDL STL",
    "shared": "LDS LDSM STS STSM",
    "exchange": "SHFL VOTE MATCH REDUX",
    "float": "FADD FADD2 FFMA FFMA2 FMUL FMUL2 FMNMX FSEL FSET FSETP FSWZADD HADD2 HFMA2 HMNMX2 HMUL2 HSET2 HSETP2",
    "double": "DADD DFMA DMNMX DMUL DSETP",
    "integer": "BMSK BREV FLO IABS IADD IADD3 IDP IMAD IMNMX IMUL ISCADD ISETP LEA LOP LOP3 LOP32I PLOP3 POPC PRMT SEL SGXT SHF SHL SHR "
    "VABSDIFF VIADD VIADDMNMX VIMNMX VIMNMX3",
    "conversion": "F2F F2FP F2I F2IP FRND I2F I2FP I2I I2IP",
    "special": "FCHK MUFU",
    "move": "CS2R LDC MOV MOV32I P2R R2P S2R",
    "scalar": "LDCU R2UR S2UR",
    "branch": "BMOV BRA BREAK BRX BSSY BSYNC CALL EXIT JMP JMX RET RPCMOV WARPSYNC YIELD",
    "barrier": "BAR MEMBAR",
}
SASS_CLASS: Final = {opcode: name for name, opcodes in SASS_CLASSES.items() for opcode in opcodes.split()}


def _sass_class(opcode: str) -> str:
    family, *modifiers = opcode.split(".")
    if "F64" in modifiers or "RCP64H" in modifiers or "RSQ64H" in modifiers:
        return "double"
    return SASS_CLASS.get(family) or ("scalar" if family.startswith("U") else "other")


def _sass_width(opcode: str) -> int:
    """Bytes per thread of a SASS memory instruction: LDG.E is 4, LDG.E.128 is 16, LDG.E.U16 is 2."""
    for part in opcode.split(".")[1:]:
        if match := re.fullmatch(r"[US]?(8|16|64|128)", part):
            return int(match[1]) // 8
    return 4


def nvidia_resources(usage: str, sass: str, shared: int, threads: int, target: str) -> Resources:
    """Resources from the output of cuobjdump and nvdisasm; `shared` bytes and `threads` per program come from the launch."""
    registers = int(re.findall(r"\bREG:(\d+)", usage)[-1])
    opcodes = Counter(opcode for opcode in SASS_INSTRUCTION.findall(sass) if not opcode.startswith("NOP"))

    def widths(*families: str) -> Counter[int]:
        found: Counter[int] = Counter()
        for opcode, times in opcodes.items():
            if opcode.split(".")[0] in families:
                found[_sass_width(opcode)] += times
        return found

    def total(family: str) -> int:
        return sum(width * times for width, times in widths(family).items())

    chip = architecture(target)
    per_warp = -(-registers * chip.warp_size // 256) * 256  # registers go to a warp by 256
    return Resources(
        registers=registers,
        spill_store_bytes=total("STL"),
        spill_load_bytes=total("LDL"),
        shared_bytes=shared,
        threads=threads,
        instructions=opcodes.total(),
        load_widths=dict(sorted(widths("LDG").items())),
        store_widths=dict(sorted(widths("STG").items())),
        occupancy=_occupancy(chip, chip.registers // per_warp, shared, threads),
        mix=_mix(_sass_class(opcode) for opcode in opcodes.elements()),
    )


AMD_INSTRUCTION: Final = re.compile(r"^\s+((?:v|s|ds|global|buffer|flat|scratch)_\w+)", re.MULTILINE)
AMD_WIDTHS: Final = {"ubyte": 1, "sbyte": 1, "byte": 1, "ushort": 2, "sshort": 2, "short": 2, "dword": 4}
AMD_CLASSES: Final = tuple(
    (name, re.compile(pattern))
    for name, pattern in (
        ("global_load", r"(?:global|buffer|flat)_load_"),
        ("global_store", r"(?:global|buffer|flat)_store_"),
        ("local", r"scratch_"),
        ("exchange", r"ds_(?:b?permute|swizzle)|v_\w+_dpp$|v_(?:permlane|readlane|readfirstlane|writelane)"),
        ("shared", r"ds_"),
        ("barrier", r"s_barrier"),
        ("branch", r"s_(?:c?branch|setpc|swappc|call|endpgm)"),
        ("wait", r"s_(?:waitcnt|wait_|nop|delay_alu|clause|sleep|sendmsg)"),
        ("scalar", r"s_"),
        ("special", r"v_(?:rcp|rsq|sqrt|exp|log|sin|cos)_f(?:16|32)"),
        ("double", r"v_\w*_f64"),
        ("conversion", r"v_cvt_"),
        ("float", r"v_\w*_(?:f32|f16|bf16)"),
        ("move", r"v_(?:dual_)?mov_|v_accvgpr_"),
        ("integer", r"v_"),
    )
)
"""The first that fits from an instruction's start on is its class."""


@cache
def _amd_class(instruction: str) -> str:
    return next((name for name, pattern in AMD_CLASSES if pattern.match(instruction)), "other")


def _amd_width(access: str) -> int | None:
    """Bytes per thread of `ubyte`, `short_d16_hi`, `dwordx4` (up to gfx10) or `u8`, `d16_hi_b16`, `b128` (from gfx11 on); else None."""
    if match := re.fullmatch(r"(?:d16_)?(?:hi_)?[bui](8|16|32|64|96|128)", access):
        return int(match[1]) // 8
    match = re.fullmatch(r"([a-z]+?)(?:x([234]))?(?:_d16)?(?:_hi)?", access)
    if match is None or match[1] not in AMD_WIDTHS:
        return None
    return AMD_WIDTHS[match[1]] * int(match[2] or 1)


def amd_resources(assembly: str, shared: int, threads: int, target: str) -> Resources:
    """Resources from the assembly text and its comments; `shared` bytes and `threads` per program come from the launch.

    Raises:
        UnsupportedProblemError: the text lacks a line that Triton 3.6 and 3.7 write, or has accesses of an unknown form.
    """

    def number(pattern: str) -> int:
        found = re.search(pattern, assembly)
        if found is None:
            msg = f"the assembly for {target} has no line matching {pattern!r}: this Triton version writes another format"
            raise UnsupportedProblemError(msg)
        return int(found[1])

    instructions = Counter(AMD_INSTRUCTION.findall(assembly))

    def widths(verb: str) -> dict[int, int]:
        found: Counter[int] = Counter()
        for instruction, times in instructions.items():
            _, marker, access = instruction.partition(f"_{verb}_")
            if not marker or _amd_class(instruction) != f"global_{verb}":
                continue
            if (width := _amd_width(access)) is None:
                msg = f"the assembly for {target} accesses memory by {instruction}, of an unknown width: this architecture is not read yet"
                raise UnsupportedProblemError(msg)
            found[width] += times
        return dict(sorted(found.items()))

    chip = architecture(target)
    registers, spilled = number(r"\.vgpr_count:\s*(\d+)"), 4 * number(r"\.vgpr_spill_count:\s*(\d+)")
    return Resources(
        registers=registers,
        spill_store_bytes=spilled,
        spill_load_bytes=spilled,
        shared_bytes=shared,
        threads=threads,
        instructions=instructions.total(),
        load_widths=widths("load"),
        store_widths=widths("store"),
        occupancy=_occupancy(chip, number(r";\s*Occupancy:\s*(\d+)") * chip.simds, shared, threads),
        mix=_mix(_amd_class(instruction) for instruction in instructions.elements()),
    )


def _occupancy(chip: Architecture, warps_by_registers: int, shared: int, threads: int) -> float:
    """Share of a processor's warps that fit, in whole programs."""
    warps = -(-threads // chip.warp_size)
    by_memory = chip.shared // (shared + chip.shared_overhead) if shared + chip.shared_overhead else chip.programs
    programs = min(warps_by_registers // warps, chip.warps // warps, by_memory, chip.programs)
    return programs * warps / chip.warps
