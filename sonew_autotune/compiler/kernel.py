"""Compile a kernel for any GPU without having one, and read what it costs.

The stages are the compiler's own; the resources come from the machine code: registers from `cuobjdump --dump-resource-usage`,
spills and access widths from the disassembly (NVIDIA), everything from the assembly text and its comments (AMD).
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

from sonew.errors import BackendUnavailableError, InvalidConfigError, SonewError
from sonew_autotune.compiler.resources import Resources, amd_resources, nvidia_resources
from sonew_autotune.compiler.targets import TARGETS, parse_target
from sonew_kernels.spec import COMPILE_OPTIONS, SPECS, Graft, Storage, TritonLaunch, triton_launches

__all__ = [
    "ALL_FLOAT32",
    "BINARIES",
    "ENTRIES",
    "KERNELS",
    "STAGES",
    "TARGETS",
    "Binary",
    "CompileError",
    "Compiled",
    "Dtypes",
    "Resources",
    "compile_kernel",
    "find_triton",
    "parse_target",
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
BINARIES: Final[Mapping[str, str]] = {"cuda": "cubin", "hip": "hsaco"}  # the last stage, which is no text

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
class Binary:
    """Machine code, and what launching it takes.

    Attributes:
        code: a cubin or hsaco. symbol: the kernel's name in it. num_warps: of a program.
        arguments: types by name, in order. scratch: how many pointers to scratch memory follow them (null where none is used).
        constants: what the code is specialised for.
        triton: version of the compiler.
    """

    code: bytes
    symbol: str
    num_warps: int
    arguments: Mapping[str, str]
    scratch: int
    constants: Mapping[str, int]
    triton: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A kernel compiled for a target: the text of every stage (see `STAGES`) and its resources.

    `binary` is None where it stayed behind with the text, in the process that compiled.
    """

    kernel: str
    target: str
    band: int
    stages: Mapping[str, str]
    resources: Resources
    binary: Binary | None = None


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        msg = f"{name}={value!r} is not one of {list(allowed)}. Use {allowed[0]!r}."
        raise InvalidConfigError(msg)
    return value


def find_triton() -> Any:  # noqa: ANN401  # a module without type stubs
    """Triton, ready to compile.

    Raises:
        BackendUnavailableError: it is not there, or a setting of the environment stops it from compiling.
    """
    try:
        triton = import_module("triton")
    except ModuleNotFoundError as error:
        msg = "triton is not installed: nothing can be compiled. Install sonew[torch] on Linux."
        raise BackendUnavailableError(msg) from error
    if triton.knobs.runtime.interpret:
        msg = "TRITON_INTERPRET is set: the interpreter compiles nothing. Unset it and start a new process."
        raise BackendUnavailableError(msg)
    if triton.knobs.compilation.store_binary_only:
        msg = "TRITON_STORE_BINARY_ONLY is set: no stage but the machine code is kept. Unset it."
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


def _attributes(function: Any, signature: Mapping[str, str], entry: str, backend: str) -> dict[tuple[int], list[list[str | int]]]:  # noqa: ANN401  # a triton.JITFunction
    """What a launch promises of the arguments. Tensors whose addresses stand in the table get no promise.

    Buffers come from the framework's allocator, which aligns them. On AMD Triton itself sees that a torch tensor lies within 2 GiB.
    """
    promises: list[list[str | int]] = [["tt.divisibility", 16]]
    if backend == "hip" and entry == "table":
        promises.append(["tt.pointer_range", 32])
    plain = {param.name for param in function.params if param.do_not_specialize}
    kinds = enumerate(signature.items())
    return {(i,): promises for i, (name, kind) in kinds if kind.startswith("*") and name not in plain}


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
    line_info: bool = True,
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
        line_info: whether the code says which source line it comes from, with this machine's paths.

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
    triton = find_triton()
    compiler = import_module("triton.compiler")
    gpu_target = import_module("triton.backends.compiler").GPUTarget(backend, arch, warp_size)
    home = SIBLINGS.get(kernel, kernel)
    function = getattr(import_module(f"sonew_kernels.{home}"), f"{kernel}_{entry}")
    launch = triton_launches(config, band)[home]
    constants = kernel_constants(kernel, launch, dtypes, graft=graft, entry=entry, chained=chained, pieces=pieces, stochastic=stochastic)
    signature = _signature(function.arg_names, constants, dtypes, entry)
    source = compiler.ASTSource(function, signature, constants, _attributes(function, signature, entry, backend))
    options = {**COMPILE_OPTIONS, "num_warps": launch.num_warps}
    try:
        with nullcontext() if line_info else _without_lines(triton):
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
    arguments = {name: kind for name, kind in signature.items() if kind != "constexpr"}
    binary = Binary(
        code=built.asm[BINARIES[backend]],
        symbol=built.metadata.name,
        num_warps=launch.num_warps,
        arguments=arguments,
        scratch=_parameters(stages) - len(arguments),
        constants=constants,
        triton=triton.__version__,
    )
    return Compiled(kernel=kernel, target=target, band=band, stages=stages, resources=resources, binary=binary)


@contextmanager
def _without_lines(triton: Any) -> Iterator[None]:  # noqa: ANN401  # as find_triton
    with triton.knobs.compilation.scope():
        triton.knobs.compilation.disable_line_info = True
        yield


def _parameters(stages: Mapping[str, str]) -> int:
    """How many parameters the machine code takes."""
    if "ptx" in stages:
        return len(re.findall(r"^\s*\.param\b", stages["ptx"].partition(".entry")[2].partition(")")[0], re.MULTILINE))
    return len(re.findall(r"^\s*(?:- )?\.value_kind:", stages["amdgcn"], re.MULTILINE))


def _nvidia_tools(triton: Any, cubin: bytes) -> tuple[str, str]:  # noqa: ANN401  # as find_triton
    """(resource usage, disassembly) of a cubin, by the tools bundled with Triton."""
    tools = triton.knobs.nvidia
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        commands = ([tools.cuobjdump.path, "--dump-resource-usage", str(path)], [tools.nvdisasm.path, "-c", str(path)])
        usage, sass = (subprocess.run(c, capture_output=True, text=True, check=True).stdout for c in commands)  # noqa: S603  # bundled tools
    return usage, sass
