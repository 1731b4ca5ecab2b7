"""Fill Triton's cache with what a training launches, so that its first step finds everything compiled.

The kernels are launched through the very `StepGroup` that training uses, on tensors of a few tiles none of which takes part: what
they are specialised for is what training's launches are, by construction. For a GPU that is not here, a driver that only compiles
stands in for the real one, and the tensors lie on the CPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import torch

from sonew.backends.table import Leaf
from sonew.backends.triton_torch import StepGroup
from sonew.config import GraftName, Hyper, LaunchConfig, Plan, Problem
from sonew.errors import BackendUnavailableError
from sonew_autotune.compiler.kernel import CompileError, find_triton
from sonew_autotune.compiler.targets import architecture, parse_target
from sonew_autotune.store.files import prepare_folder
from sonew_kernels.spec import SPECS

PHASES: Final = ("prologue", "direction", "norms", "update")
TILE_COUNTS: Final[Mapping[int, str]] = {2: "several tiles", 1: "one tile", 16: "a multiple of 16 tiles"}
"""Triton compiles the prologue anew for one tile and for a multiple of 16: one group of each kind."""
_NUMBERS: Final = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What the kernels of a launch group are specialised for, besides the GPU.

    Attributes:
        band: off-diagonals. config: a point of the Triton space.
        param_dtype, grad_dtype, state_dtype, direction_dtype: storage types. graft: whose norm the direction takes.
        chained: chains end inside tensors. pieces: parts of sharded tensors. counted: columns that fall back are counted.
        stochastic: bfloat16 parameters are rounded stochastically.
    """

    band: int
    config: LaunchConfig
    param_dtype: str = "float32"
    grad_dtype: str = "float32"
    state_dtype: str = "float32"
    direction_dtype: str = "float32"
    graft: GraftName = "adam"
    chained: bool = False
    pieces: bool = False
    counted: bool = False
    stochastic: bool = False

    def problem(self, device: str, length: int) -> Problem:
        """A problem of one tensor with these types."""
        return Problem(
            device=device,
            band=self.band,
            param_dtype=self.param_dtype,
            grad_dtype=self.grad_dtype,
            state_dtype=self.state_dtype,
            direction_dtype=self.direction_dtype,
            total=length,
            median=length,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmed:
    """A kernel that a launch needs.

    Attributes:
        hit: whether Triton's cache had it. seconds: that compiling took, or reading.
        key: the name of its folder in the cache. tiles: which groups of its launch a prologue serves, "" for others.
        error: why it does not compile, in a line; "" where it does.
        refused: whether the compiler refuses it; False also where the machine failed (a full disk, no memory).
    """

    kernel: str
    launch: Launch
    hit: bool
    seconds: float
    key: str
    tiles: str = ""
    error: str = ""
    refused: bool = False


def cache_folder() -> Path:
    """Triton's cache, where it can be written.

    Raises:
        BackendUnavailableError: Triton is not there, or is set not to use it.
        InvalidConfigError: the folder cannot be written.
    """
    triton = find_triton()
    if triton.knobs.compilation.always_compile:
        msg = "TRITON_ALWAYS_COMPILE is set: Triton would not read its cache. Unset it, here and for training."
        raise BackendUnavailableError(msg)
    folder = Path(triton.knobs.cache.dir)
    return prepare_folder(folder, subject=f"Triton's cache {folder}", fix="Set TRITON_CACHE_DIR to a folder that can be written.")


def warm(launches: Sequence[Launch], target: str | None, told: Callable[[Warmed], None]) -> list[Warmed]:
    """Compile whatever these launches need and the cache has not.

    Args:
        launches: of training. target: of a GPU that is not here; None: the one here, where each kernel is loaded and launched, too.
        told: called for each kernel, as it is done.

    Raises:
        BackendUnavailableError, InvalidConfigError: as `cache_folder`, or an unknown target.
    """
    cache_folder()
    found: dict[tuple[str, str], Warmed] = {}
    device = torch.device("cuda" if target is None else "cpu")
    for launch in launches:
        with nullcontext() if target is None else _compiling_driver(target):
            for tiles in TILE_COUNTS:
                phases = PHASES if tiles == next(iter(TILE_COUNTS)) else PHASES[:1]
                for warmed in _launch_group(launch, tiles, phases, device, target or "the GPU here"):
                    if found.setdefault((warmed.kernel, warmed.key), warmed) is warmed:
                        told(warmed)
    return list(found.values())


def _launch_group(launch: Launch, tiles: int, phases: Sequence[str], device: torch.device, target: str) -> Iterator[Warmed]:
    """Launch phases of a group; each kernel as it is compiled or found."""
    group = _group(launch, tiles, device)
    for phase in phases:
        about: dict[str, Any] = {"kernel": phase, "launch": launch, "tiles": TILE_COUNTS[tiles] if phase == PHASES[0] else ""}
        with _heard() as heard:
            try:
                getattr(group, phase)()
                if device.type == "cuda":
                    torch.cuda.synchronize()  # a launch that fails says so now
            except Exception as error:  # noqa: BLE001  # whatever the compiler raises is this kernel's alone
                reason = str(CompileError(phase, target, error))
                refused = not isinstance(error, OSError | MemoryError)
                yield Warmed(hit=False, seconds=0.0, key=f"{phase} {launch}", error=reason, refused=refused, **about)
                continue
        for hit, seconds, key in heard:
            yield Warmed(hit=hit, seconds=seconds, key=key, **about)


def _group(launch: Launch, tiles: int, device: torch.device) -> StepGroup:
    """A group of one tensor, of so many direction tiles, that takes no part in a step."""
    length = (tiles - 1) * SPECS["triton"].tile(launch.config.as_dict(), launch.band) + 1
    types = {name: getattr(torch, getattr(launch, f"{name}_dtype")) for name in ("param", "state")}
    leaf = Leaf(
        torch.zeros(length, dtype=types["param"], device=device),
        torch.zeros(length, dtype=types["state"], device=device),
        torch.zeros((launch.band + 1, length), dtype=types["state"], device=device),
        torch.zeros((), dtype=torch.int32, device=device),
        1 if launch.chained else 2 * length,
        total=2 * length if launch.pieces else None,
    )
    plan = Plan(problem=launch.problem(device.type, length), backend="triton", config=launch.config, provenance="to be compiled")
    group = StepGroup([leaf], plan, counted=launch.counted)
    group.set_hyper(Hyper(band=launch.band, graft=launch.graft, stochastic_rounding=launch.stochastic))
    group.bind([None])
    return group


@contextmanager
def _heard() -> Iterator[list[tuple[bool, float, str]]]:
    """What Triton compiles, or finds in its cache, for the launches inside: whether it was there, seconds, key."""
    knobs = find_triton().knobs.compilation
    before, found = knobs.listener, list[tuple[bool, float, str]]()

    def listener(*, metadata: Mapping[str, Any], times: Any, cache_hit: bool, **others: Any) -> None:  # noqa: ANN401  # Triton's own
        if before is not None:
            before(metadata=metadata, times=times, cache_hit=cache_hit, **others)
        found.append((cache_hit, times.total / 1e6, metadata["hash"]))

    knobs.listener = listener
    try:
        yield found
    finally:
        knobs.listener = before


@contextmanager
def _compiling_driver(target: str) -> Iterator[None]:
    """In place of Triton's driver one for the target, whose launches end when the code is compiled."""
    backend, arch, warp_size = parse_target(target)
    driver = import_module("triton.runtime").driver
    chip = architecture(target)
    gpu = import_module("triton.backends.compiler").GPUTarget(backend, arch, warp_size)
    number = f"{target}, not here, {next(_NUMBERS)}"  # Triton keeps what it compiled in this process by device: nothing of earlier calls
    utils = SimpleNamespace(
        get_device_properties=lambda _device: {"max_shared_mem": chip.shared_per_program},
        load_binary=lambda *_code: (None, None, 0, 0, 1024),  # module, function, registers, spills, threads of the largest program
    )
    stand_in = SimpleNamespace(
        get_current_target=lambda: gpu,
        get_current_device=lambda: number,
        get_current_stream=lambda _device: 0,
        launcher_cls=lambda _source, _metadata: lambda *_launch: None,
        utils=utils,
    )
    before = driver._active  # noqa: SLF001  # reading `active` would look for a GPU
    driver.set_active(stand_in)
    try:
        yield
    finally:
        driver.set_active(before)
