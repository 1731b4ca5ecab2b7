"""Compile a kernel for any GPU without having one, read what it costs, and rank candidates by a simple model.

The stages are the compiler's own; the resources come from the machine code: registers from `cuobjdump --dump-resource-usage`,
spills and access widths from the disassembly (NVIDIA), everything from the assembly text and its comments (AMD).
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

from sonew.errors import BackendUnavailableError, InvalidConfigError, SonewError
from sonew_autotune.compiler.resources import Architecture, Resources, amd_resources, architecture, nvidia_resources
from sonew_kernels.spec import COMPILE_OPTIONS, SPECS, Graft, Storage, TritonLaunch, triton_launches
from sonew_kernels.traffic import direction_bytes, update_bytes

__all__ = [
    "ALL_FLOAT32",
    "ENTRIES",
    "KERNELS",
    "STAGES",
    "TARGETS",
    "CompileError",
    "Compiled",
    "Dtypes",
    "Resources",
    "compile_kernel",
    "parse_target",
    "static_rank",
]

KERNELS: Final = ("prologue", "direction", "norms", "update")
ENTRIES: Final[Mapping[str, tuple[str, ...]]] = {
    "table": KERNELS,
    "direct": ("prologue", "direction", "roots"),
    "in_place": ("direction",),
}
"""The kernels of each entry: table (torch), direct (jax), and direct without parameters of their own for outputs that are inputs."""
SIBLINGS: Final[Mapping[str, str]] = {"roots": "norms"}  # kernels that stand in another one's file and are launched as it is
STAGES: Final = {"cuda": ("ttir", "ttgir", "llir", "ptx", "sass"), "hip": ("ttir", "ttgir", "llir", "amdgcn")}
TARGETS: Final = ("cuda:80", "cuda:90", "cuda:100", "hip:gfx942")  # compiled and checked by the tests; others may work

POINTERS: Final[Mapping[str, str]] = {
    "rows": "*i64",
    "tiles": "*i32",
    "update_tiles": "*i32",
    "pieces": "*i32",
    "count": "*i32",
    "partials": "*fp64",
}
"""Types of the pointer arguments that are not float32; only the table entry has `rows` as int64."""
STORAGE_TYPES: Final[Mapping[str, str]] = {"float32": "*fp32", "bfloat16": "*bf16", "float16": "*fp16"}


class Dtypes(NamedTuple):
    """Storage types of a problem's arrays."""

    param: str = "float32"
    grad: str = "float32"
    state: str = "float32"
    direction: str = "float32"


ALL_FLOAT32: Final = Dtypes()


class CompileError(SonewError, RuntimeError):
    """The compiler or its tools refuse a kernel; the message has their own reason in a line."""

    def __init__(self, kernel: str, target: str, error: Exception) -> None:
        text = str(error.stderr) if isinstance(error, subprocess.CalledProcessError) and error.stderr else str(error)
        lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
        reason = next((line for line in lines if "fatal" in line), lines[0])  # ptxas' own word, in the midst of Triton's
        super().__init__(f"the {kernel} kernel does not compile for {target}: {type(error).__name__}: {reason[:500]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A kernel compiled for a target: the text of every stage (see `STAGES`) and its resources."""

    kernel: str
    target: str
    band: int
    stages: Mapping[str, str]
    resources: Resources


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


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        msg = f"{name}={value!r} is not one of {list(allowed)}. Use {allowed[0]!r}."
        raise InvalidConfigError(msg)
    return value


def _triton() -> Any:  # noqa: ANN401  # a module without type stubs
    try:
        triton = import_module("triton")
    except ModuleNotFoundError as error:
        msg = "triton is not installed: nothing can be compiled. Install sonew[torch] on Linux."
        raise BackendUnavailableError(msg) from error
    if triton.knobs.runtime.interpret:
        msg = "TRITON_INTERPRET is set: the interpreter compiles nothing. Unset it and start a new process."
        raise BackendUnavailableError(msg)
    return triton


def kernel_constants(
    kernel: str,
    launch: TritonLaunch,
    dtypes: Dtypes,
    *,
    graft: str,
    entry: str,
    chained: bool = False,
    pieces: bool = False,
    stochastic: bool = False,
    counted: bool = False,
) -> dict[str, int]:
    """Every constant that a kernel is specialised for."""
    constants = dict(launch.constants)
    param, grad, state, direction = (int(Storage[dtype.upper()]) for dtype in dtypes)
    if kernel in ("direction", "norms"):
        constants["GRAFT"] = int(Graft[graft.upper()])
    if kernel == "prologue":
        constants |= {"STATE_STORAGE": state} if entry == "table" else {"PIECES": int(pieces)}
    if kernel in ("direction", "update"):
        constants["DIRECTION_STORAGE"] = direction
    if kernel == "direction":
        constants |= {"STATE_STORAGE": state, "CHAINED": int(chained), "PIECES": int(pieces), "COUNTED": int(counted)}
        constants |= {"GRAD_STORAGE": grad} if entry == "table" else {}
    if kernel == "update":
        constants |= {"STORAGE": param, "STOCHASTIC": int(stochastic)}
    return constants


def _signature(names: list[str], constants: Mapping[str, int], dtypes: Dtypes, entry: str) -> dict[str, str]:
    param, grad, state, direction = (STORAGE_TYPES[dtype] for dtype in dtypes)
    stored = {
        "param": param,
        **dict.fromkeys(("momentum", "momentum_out", "stats", "stats_out", "edges"), state),
        "grad": grad,
        "direction": direction,
    }
    words = {} if entry == "table" else {"rows": "*i32"}
    known = {**POINTERS, **words, **stored, "tile_count": "i32", **dict.fromkeys(constants, "constexpr")}
    return {name: known.get(name, "*fp32") for name in names}


def compile_kernel(
    kernel: str,
    config: Mapping[str, int],
    band: int,
    target: str,
    *,
    dtypes: Dtypes = ALL_FLOAT32,
    graft: str = "adam",
    entry: str = "table",
    chained: bool = False,
    pieces: bool = False,
    stochastic: bool = False,
) -> Compiled:
    """Compile one kernel to machine code, without a device; repeated calls come from Triton's own cache.

    Args:
        kernel: one of the entry's (`ENTRIES`).
        config: a point of the Triton space (`sonew_kernels.spec.TRITON`).
        band: off-diagonals, one of `sonew_kernels.spec.SUPPORTED_BANDS`.
        target: "cuda:90", "hip:gfx942" and the like.
        dtypes: storage types.
        graft: name of the graft. entry: one of `ENTRIES`.
        chained: whether chains end inside tensors. pieces: whether some tensor's elements lie elsewhere.
        stochastic: whether bfloat16 parameters are written rounded stochastically.

    Raises:
        InvalidConfigError: an argument outside its set.
        CompileError: the compiler or its tools refuse it.
        UnsupportedProblemError: the machine code is of a kind that is not read.
        BackendUnavailableError: no Triton, or its interpreter is on.
    """
    _choice("entry", entry, tuple(ENTRIES))
    _choice("kernel", kernel, ENTRIES[entry])
    for dtype in dtypes:
        _choice("dtype", dtype, tuple(STORAGE_TYPES))
    _choice("graft", graft, tuple(member.name.lower() for member in Graft))
    if reason := SPECS["triton"].rejects(config, band):
        msg = f"config={dict(config)} is not allowed: {reason}"
        raise InvalidConfigError(msg)
    backend, arch, warp_size = parse_target(target)
    triton = _triton()
    compiler = import_module("triton.compiler")
    gpu_target = import_module("triton.backends.compiler").GPUTarget(backend, arch, warp_size)
    home = SIBLINGS.get(kernel, kernel)
    function = getattr(import_module(f"sonew_kernels.{home}"), f"{kernel}_{entry}")
    launch = triton_launches(config, band)[home]
    constants = kernel_constants(kernel, launch, dtypes, graft=graft, entry=entry, chained=chained, pieces=pieces, stochastic=stochastic)
    signature = _signature(function.arg_names, constants, dtypes, entry)
    # Buffers come from the framework's allocator, which aligns them; tensors in the table get no such promise.
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(signature.values()) if kind.startswith("*")}
    source = compiler.ASTSource(function, signature, constants, aligned)
    options = {**COMPILE_OPTIONS, "num_warps": launch.num_warps}
    try:
        built = triton.compile(source, target=gpu_target, options=options)
        usage, sass = _nvidia_tools(triton, built.asm["cubin"]) if backend == "cuda" else ("", "")
    except Exception as error:  # Triton raises whatever it meets
        raise CompileError(kernel, target, error) from error
    stages = {name: built.asm[name] for name in STAGES[backend] if name in built.asm}
    if backend == "cuda":
        stages["sass"] = sass
        resources = nvidia_resources(usage, stages["sass"], built.metadata.shared, launch.num_warps * warp_size, target)
    else:
        resources = amd_resources(stages["amdgcn"], built.metadata.shared, launch.num_warps * warp_size, target)
    return Compiled(kernel=kernel, target=target, band=band, stages=stages, resources=resources)


def _nvidia_tools(triton: Any, cubin: bytes) -> tuple[str, str]:  # noqa: ANN401  # as _triton
    """(resource usage, disassembly) of a cubin, by the tools bundled with Triton."""
    tools = triton.knobs.nvidia
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        commands = ([tools.cuobjdump.path, "--dump-resource-usage", str(path)], [tools.nvdisasm.path, "-c", str(path)])
        usage, sass = (subprocess.run(c, capture_output=True, text=True, check=True).stdout for c in commands)  # noqa: S603  # bundled tools
    return usage, sass


def static_rank(compiled: Mapping[str, Compiled], config: Mapping[str, int], band: int) -> float:
    """Estimated clocks per element and processor of the direction and update kernels: lower is better.

    A model, not a measurement; it orders candidates for a device that is not here. Per program of n owned elements:
    - memory: bytes moved / (bytes per clock), where the direction kernel adds the border records it reads and the prologue
      copies, 16 (band + 2) (4 band) bytes per tile, so that small tiles pay for their halo;
    - issue: instructions * warps / (instructions per clock); halo lanes are paid for because n excludes them;
    - overlap: a program alone takes TRIPS * latency + memory + issue, one after the other, for its loads stand before a
      barrier and its work after it; with p programs resident (from the occupancy) that time is shared by p;
    - spills: (stored + loaded bytes) * threads, at the first-level cache's 64 bytes per clock.
    A program costs max(memory, issue, overlap) + spills, divided by n. The two kernels' costs add.

    Args:
        compiled: the compiled "direction" and "update" kernels of this configuration, by name.
        config: the configuration. band: its band.
    """
    chip = architecture(compiled["direction"].target)
    tile = SPECS["triton"].tile(config, band)
    block = SPECS["triton"].update_tile(config, band)
    moved = direction_bytes(band) * tile + 16 * (band + 2) * 4 * band
    direction = _program_cost(chip, compiled["direction"].resources, moved)
    update = _program_cost(chip, compiled["update"].resources, update_bytes() * block)
    return direction / tile + update / block


TRIPS: Final = 3  # to memory before a program's first use: tile map, table row, tensors


def _program_cost(chip: Architecture, used: Resources, moved: float) -> float:
    """Clocks of one program; terms as in `static_rank`."""
    warps = max(1, used.threads // chip.warp_size)
    programs = max(used.occupancy * chip.warps / warps, 1.0)
    memory = moved / chip.bytes_per_clock
    issue = used.instructions * warps / chip.issue
    overlap = (TRIPS * chip.latency + memory + issue) / programs
    spills = (used.spill_store_bytes + used.spill_load_bytes) * used.threads / 64
    return max(memory, issue, overlap) + spills
