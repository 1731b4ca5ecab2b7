"""Launch specs: what the kernels expect in memory, what may be tuned. Plain data, no framework. What moves: `traffic.py`.

Every kernel works on a *group*: tensors with the same band, graft and dtypes. A group is described by a table with one
row per tensor (`Column`), a map from tile to tensor, and a few flat buffers. The derivation stands in `kernels/README.md`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Final

SUPPORTED_BANDS: Final = (*range(9), 16)
LARGEST_UNROLLED_LOAD: Final = 8  # the largest band whose windows the Triton kernel loads entry by entry


class Column(IntEnum):
    """Columns of the group's table, int64, shape (tensors, len(Column)). Addresses are bytes, the rest are elements.

    A row is one contiguous *piece* of a tensor in logical row-major order (unsharded: the whole tensor). In *joined* arrays, which
    stand for addresses where there are none (JAX), the pieces lie one behind the other: gradient and momentum start at OFFSET, stats
    at (band + 1) OFFSET.
    """

    PARAM = 0
    GRAD = 1
    MOMENTUM = 2
    STATS = 3  # (band + 1, LENGTH), row k holds the running mean of g[i] g[i+k]
    COUNT = 4  # int32 scalar
    LENGTH = 5  # elements of this piece
    START = 6  # position of the piece's first element in its tensor; of joined pieces their number times LENGTH, as shards differ in it
    TOTAL = 7  # elements of the whole tensor
    CHAIN = 8  # chain length; element i belongs to chain (START + i) // CHAIN
    OFFSET = 9  # where the piece's direction starts in the direction buffer
    FIRST_TILE = 10  # the piece's first direction tile; its border records start at FIRST_TILE + row
    FIRST_UPDATE_TILE = 11
    ACTIVE = 12  # 0: no gradient this step, the tensor is left alone
    SEED = 13  # of the tensor's stochastic rounding, an int32 (`sonew.rounding`)


class Slot(IntEnum):
    """Slots of the float32 vector of per-step numbers, which lives in device memory so that no value recompiles."""

    LR = 0
    WEIGHT_DECAY = 1
    BETA1 = 2
    ONE_MINUS_BETA1 = 3
    LOG_BETA1 = 4
    BETA2 = 5
    ONE_MINUS_BETA2 = 6
    LOG_BETA2 = 7
    EPS = 8
    EPS_REL = 9
    GAMMA = 10
    GAIN = 11  # factor of every gradient: -1 where the objective is maximized, divided by the loss scale
    SKIP = 12  # not 0: the step is skipped, nothing of parameters, state or counts moves


class Graft(IntEnum):
    """Whose norm the direction takes: none, m^/(sqrt(d^)+1e-8), m^/(sqrt(d)+1e-8), g, g/(sqrt(d^)+1e-8)."""

    NONE = 0
    ADAM = 1
    ADAM_UNCORRECTED = 2
    SGD = 3
    RMSPROP = 4


class Storage(IntEnum):
    """Storage types of parameters and gradients; arithmetic is float32."""

    FLOAT32 = 0
    BFLOAT16 = 1
    FLOAT16 = 2


STORAGE_BYTES: Final[Mapping[str, int]] = {"float32": 4, "bfloat16": 2, "float16": 2}


def border_record(band: int) -> tuple[int, int]:
    """Shape of one border record: (fields, positions), in the state's type.

    Fields: momentum, stats rows 0..band. Position q is element `border - band + q`, so the record holds the *old* values
    of the 2 * band elements around a border.
    """
    return band + 2, 2 * band


def outer_gradients(band: int) -> tuple[int, int]:
    """Shape of a piece's outer gradients, float32: the band elements before its start, then the band elements from its end on.

    They are filled only where the piece's neighbour lives elsewhere: inside a piece the gradient is read-only and is read in place.
    """
    return 2, band


def outer_state(band: int) -> tuple[int, int, int]:
    """Shape of a piece's outer state, float32: (side, fields, band), the old values before its start, then those from its end on.

    The outer halves of the border records at its two ends, with the fields of `border_record`, for the prologue to put there.
    """
    return 2, band + 2, band


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunable:
    """One axis of the search space: its name and the values it may take."""

    name: str
    values: tuple[int, ...]
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSpec:
    """A kernel family: what is tuned, which combinations are allowed, what runs when nothing was tuned.

    `rejects(config, band)` is the one statement of the family's constraints: it returns a reason or None and is used
    by tuner, loader and tests alike. `tile(config, band)` is the number of elements that one program or segment owns.
    """

    name: str
    device: str  # "cpu" or "gpu"
    sources: tuple[str, ...]  # files beside this one whose text decides the machine code
    tunables: tuple[Tunable, ...]
    default: Callable[[int], dict[str, int]]
    rejects: Callable[[Mapping[str, int], int], str | None]
    tile: Callable[[Mapping[str, int], int], int]
    update_tile: Callable[[Mapping[str, int], int], int]


def reject_unknown(spec: KernelSpec, config: Mapping[str, int]) -> str | None:
    """Reason why `config` is not a point of the spec's space, or None."""
    names = {tunable.name for tunable in spec.tunables}
    if set(config) != names:
        return f"{spec.name} takes {sorted(names)}, got {sorted(config)}"
    for tunable in spec.tunables:
        if config[tunable.name] not in tunable.values:
            return f"{tunable.name}={config[tunable.name]} is not one of {list(tunable.values)}"
    return None


@cache
def source_hash(spec_name: str) -> str:
    """First 16 hex digits of the SHA-256 over the kernel family's source files: a tuned entry with another one is stale."""
    digest = hashlib.sha256()
    for name in sorted(SPECS[spec_name].sources):
        digest.update(name.encode())
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:16]


def _triton_default(band: int) -> dict[str, int]:
    """Analytic default: wide tiles while registers allow, at most four elements per thread from band 4 on."""
    block, warps = {0: (512, 8), 1: (1024, 8), 2: (512, 8), 3: (512, 8), 4: (256, 4), 5: (256, 4), 6: (256, 4)}.get(band, (128, 4))
    return {"block": block, "num_warps": warps, "update_block": 1024, "update_num_warps": 4}


def _triton_rejects(config: Mapping[str, int], band: int) -> str | None:
    if reason := reject_unknown(TRITON, config):
        return reason
    if band not in SUPPORTED_BANDS:
        return f"band={band} is not one of {list(SUPPORTED_BANDS)}"
    if config["block"] < 8 * band:
        return f"block={config['block']} is below 8 * band = {8 * band}: the halo would cost more than the work"
    for block, warps in (("block", "num_warps"), ("update_block", "update_num_warps")):
        per_thread = config[block] / (32 * config[warps])
        if not 1 <= per_thread <= 16:
            return f"{block}={config[block]} with {warps}={config[warps]} gives {per_thread:g} elements per thread, allowed 1 to 16"
    return None


TRITON: Final = KernelSpec(
    name="triton",
    device="gpu",
    sources=("band.py", "storage.py", "window.py", "prologue.py", "block.py", "direction.py", "norms.py", "update.py", "spec.py"),
    tunables=(
        Tunable(name="block", values=(128, 256, 512, 1024, 2048, 4096), meaning="lanes of a direction tile, halo included"),
        Tunable(name="num_warps", values=(1, 2, 4, 8, 16), meaning="warps of a direction program"),
        Tunable(name="update_block", values=(256, 512, 1024, 2048, 4096), meaning="elements of an update tile"),
        Tunable(name="update_num_warps", values=(1, 2, 4, 8), meaning="warps of an update program"),
    ),
    default=_triton_default,
    rejects=_triton_rejects,
    tile=lambda config, band: config["block"] - band,
    update_tile=lambda config, _band: config["update_block"],
)


COMPILE_OPTIONS: Final[Mapping[str, int | bool]] = {"num_stages": 1, "enable_fp_fusion": False}
"""Options of every Triton kernel. Multiply-adds are fused by hand, so the bits do not depend on compiler or entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonLaunch:
    """Constants and warps of one Triton kernel; `unit` is how many tiles, borders or tensors one program takes."""

    constants: Mapping[str, int]
    num_warps: int
    unit: int = 1


def triton_launches(config: Mapping[str, int], band: int) -> dict[str, TritonLaunch]:
    """Launch of every kernel under a configuration: prologue (per 64 tiles), direction and update (per tile), norms (per tensor)."""
    tile = TRITON.tile(config, band)
    positions = 1 << max(2 * band - 1, 0).bit_length()
    borders = min(64, 1024 // positions)
    return {
        "prologue": TritonLaunch(
            constants={"BAND": band, "TILE": tile, "BORDERS": borders, "POSITIONS": positions}, num_warps=4, unit=borders
        ),
        "direction": TritonLaunch(constants={"BAND": band, "BLOCK": config["block"]}, num_warps=config["num_warps"]),
        "norms": TritonLaunch(constants={"TILE": tile, "BLOCK": 4096}, num_warps=16),
        "update": TritonLaunch(constants={"BLOCK": config["update_block"]}, num_warps=config["update_num_warps"]),
    }


# Never -ffast-math or -ffinite-math-only: they delete NaN tests and flush denormals in the whole process. Contraction to fused
# multiply-adds is the same for every element, because each formula has one body. The OpenMP runtime is not linked: its
# symbols resolve to the one that torch has loaded, and so there is one pool of threads.
CPU_FLAGS: Final = (
    *("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd"),
    *("-fPIC", "-fvisibility=hidden", "-shared"),
)


def _cpu_default(_band: int) -> dict[str, int]:
    """Analytic default: segments that leave work for every core, blocks that stay in the second-level cache."""
    return {"segment": 16384, "block": 1024, "threads": 0}


def _cpu_rejects(config: Mapping[str, int], band: int) -> str | None:
    if reason := reject_unknown(CPU, config):
        return reason
    if band not in SUPPORTED_BANDS:
        return f"band={band} is not one of {list(SUPPORTED_BANDS)}"
    if config["segment"] < config["block"]:
        return f"segment={config['segment']} is below block={config['block']}"
    return None


CPU: Final = KernelSpec(
    name="cpu",
    device="cpu",
    sources=("cpu.cpp", "cpu_block.h", "cpu_vector.h", "spec.py"),
    tunables=(
        Tunable(name="segment", values=(4096, 16384, 65536, 262144, 1048576), meaning="elements one thread takes at a time"),
        Tunable(name="block", values=(256, 512, 1024, 2048), meaning="elements of a cache-resident block inside a segment"),
        Tunable(name="threads", values=(0, 1, 2, 4, 8, 16, 32, 64), meaning="OpenMP threads; 0: torch.get_num_threads()"),
    ),
    default=_cpu_default,
    rejects=_cpu_rejects,
    tile=lambda config, _band: config["segment"],
    update_tile=lambda config, _band: config["segment"],
)

SPECS: Final[Mapping[str, KernelSpec]] = {"triton": TRITON, "cpu": CPU}
