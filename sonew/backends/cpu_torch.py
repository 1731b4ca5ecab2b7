"""The compiled CPU backend: torch tensors stepped by `sonew_kernels/cpu.cpp` on torch's own OpenMP threads."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Final

import torch

from sonew.backends import native_build
from sonew.backends.sums import graft_scales
from sonew.backends.table import GroupTable, Leaf
from sonew.config import Hyper, Plan, Problem
from sonew_kernels.spec import CPU, STORAGE_BYTES, SUPPORTED_BANDS, Graft, Storage

KERNEL: Final = CPU.name
ISAS: Final = ("avx512f", "avx2", "avx", "asimd")  # best first
STATE_DTYPES: Final = ("float32", "bfloat16")
BUFFERS: Final = ("rows", "tiles", "update_tiles", "hyper", "corrections", "edges", "outer", "direction", "partials", "scales")
NUMBERS: Final = (
    *("tensors", "tile_count", "update_tile_count", "elements", "segment", "block", "threads", "graft"),
    *("param_storage", "grad_storage", "state_storage", "direction_storage", "stochastic", "counted"),
)


class _Group(ctypes.Structure):
    """`struct Group` of cpu.cpp, field by field."""

    _fields_ = (*((name, ctypes.c_void_p) for name in BUFFERS), *((name, ctypes.c_int64) for name in NUMBERS))


def rejects(problem: Problem) -> str | None:
    """Reason why this backend cannot take the problem, or None. Builds the band's library if the cache has none."""
    if problem.device != "cpu":
        return f"it steps tensors on the CPU, these are on {problem.device}"
    if problem.band not in SUPPORTED_BANDS:
        return f"band={problem.band} is not one of {list(SUPPORTED_BANDS)}"
    for name in ("param_dtype", "grad_dtype"):
        if getattr(problem, name) not in STORAGE_BYTES:
            return f"{name}={getattr(problem, name)} is not one of {list(STORAGE_BYTES)}"
    if problem.state_dtype not in STATE_DTYPES:
        return f"state_dtype={problem.state_dtype} is not one of {list(STATE_DTYPES)}"
    try:
        native_build.load_library(problem.band)
    except native_build.NativeBuildError as error:
        return str(error)
    return None


def environment() -> dict[str, str | int]:
    """What a tuned configuration depends on: the CPU's model, its best vector extension, torch's threads, the compiler."""
    features = native_build.cpu_features().split()
    try:
        toolchain = native_build.compiler_version(native_build.find_compiler())
    except native_build.NativeBuildError:
        toolchain = "none"
    return {
        "device": native_build.cpu_model(),
        "capability": next((isa for isa in ISAS if isa in features), "generic"),
        "threads": torch.get_num_threads(),
        "toolchain": toolchain,
    }


class StepGroup:
    """Steps a group with compiled code; `table` holds its buffers. `counted`: columns that fall back are counted.

    Raises:
        NativeBuildError: the library can be neither found nor built.
    """

    def __init__(self, leaves: Sequence[Leaf], plan: Plan, *, direction: torch.Tensor | None = None, counted: bool = False) -> None:
        problem, config = plan.problem, plan.config.as_dict()
        tile, update_tile = CPU.tile(config, problem.band), CPU.update_tile(config, problem.band)
        self.table = table = GroupTable(leaves, problem, tile=tile, update_tile=update_tile, direction=direction)
        self._group = _Group(
            **{name: getattr(table, name).data_ptr() for name in BUFFERS},
            tensors=len(leaves),
            tile_count=len(table.tiles),
            update_tile_count=len(table.update_tiles),
            elements=sum(leaf.param.numel() for leaf in leaves),
            segment=config["segment"],
            block=config["block"],
            threads=config["threads"],
            counted=counted,
            **{f"{name}_storage": Storage[getattr(problem, f"{name}_dtype").upper()] for name in ("param", "grad", "state", "direction")},
        )
        self._graft = Graft.NONE
        self._follow_torch = config["threads"] == 0
        library, argument = native_build.load_library(problem.band), ctypes.byref(self._group)
        phases = (library.sonew_prologue, library.sonew_direction, library.sonew_norms, library.sonew_update)
        for phase in phases:
            phase.argtypes, phase.restype = [ctypes.POINTER(_Group)], None
        self._prologue, self._direction, self._norms, self._update = phases
        self._argument = argument

    def set_hyper(self, hyper: Hyper) -> None:
        """Settings for the coming steps."""
        self.table.set_hyper(hyper)
        self._graft = Graft[hyper.graft.upper()]
        self._group.graft = self._graft
        self._group.stochastic = hyper.stochastic_rounding

    def bind(self, grads: Sequence[torch.Tensor | None]) -> None:
        """This step's gradients; None leaves the tensor alone."""
        if self._follow_torch:
            self._group.threads = torch.get_num_threads()
        self.table.bind(grads)

    def signal(self, grad_scale: torch.Tensor | None, skip: torch.Tensor | None) -> None:
        """The loss scale and whether the step is skipped (`GroupTable.signal`)."""
        self.table.signal(grad_scale, skip)

    def halo(self, i: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Where what lies beyond piece i goes (`GroupTable.halo`)."""
        return self.table.halo(i, side)

    def sums(self) -> torch.Tensor:
        """Sums of u^2 and a^2 per tensor, float64 (n, 2)."""
        return self.table.sums()

    def take_sums(self, sums: torch.Tensor) -> None:
        """In place of `norms`: scales from sums over all pieces of each tensor."""
        self.table.scales.copy_(graft_scales(sums, grafted=self._graft is not Graft.NONE))

    def counted(self) -> torch.Tensor:
        """Per tensor of the last step, float64 (n, 2): columns that fell back (of a group made with `counted`), whether it was stepped."""
        return self.table.counted()

    def prologue(self) -> None:
        """Counts, corrections, old state around the segments' borders."""
        self._prologue(self._argument)

    def direction(self) -> None:
        """Accumulate, factor, apply: state, direction and partial norms."""
        self._direction(self._argument)

    def norms(self) -> None:
        """Scales from the partial norms."""
        self._norms(self._argument)

    def update(self) -> None:
        """Write the parameters."""
        self._update(self._argument)
        self.table.unstage()
