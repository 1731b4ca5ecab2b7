"""The Triton kernels as a torch backend: NVIDIA and AMD GPUs, and CPU tensors under Triton's interpreter."""

from __future__ import annotations

import importlib.util
import operator
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any, Final

import torch

from sonew.backends.sums import graft_scales
from sonew.backends.table import GroupTable, Leaf
from sonew.backends.triton_limits import kernel_limit
from sonew.config import Hyper, Plan, Problem
from sonew_kernels.spec import COMPILE_OPTIONS, SPECS, Graft, Storage, triton_launches

KERNEL: Final = "triton"
OLDEST_CAPABILITY: Final = (8, 0)  # the oldest NVIDIA architecture that the kernels are compiled and tested for


@cache
def _kernels() -> SimpleNamespace:
    """The table entries, imported on first use: they need Triton, and Triton reads TRITON_INTERPRET when they are imported."""
    names = ("prologue", "direction", "norms", "update")
    return SimpleNamespace(**{name: getattr(import_module(f"sonew_kernels.{name}"), f"{name}_table") for name in names})


def _interpreted() -> bool:
    return bool(import_module("triton").knobs.runtime.interpret)


def _gpu_problem() -> str | None:
    """Why no GPU can be used, with the fix, or None."""
    if not torch.cuda.is_available():
        if torch.version.cuda is None and torch.version.hip is None:
            return "this torch is built for the CPU only; install a build of torch with CUDA or ROCm"
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as error:
            first_line = str(error).strip().splitlines()[0]
            return f"the GPU cannot be used: {first_line}; update the driver or install a torch built for it"
        return "no GPU is visible; check the driver and CUDA_VISIBLE_DEVICES"
    if torch.version.hip is None and torch.cuda.get_device_capability() < OLDEST_CAPABILITY:
        major, minor = torch.cuda.get_device_capability()
        return f"compute capability {major}.{minor} is below 8.0, the oldest that is tested; use another backend"
    return None


def rejects(problem: Problem) -> str | None:
    """Reason why the kernels cannot step the problem here, or None."""
    if (limit := kernel_limit(problem)) is not None:
        return limit
    if problem.device not in ("cpu", "cuda"):
        return f"device={problem.device} is not a GPU that Triton serves"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; install the version that your torch names (pip install triton)"
    if problem.device == "cpu":
        return None if _interpreted() else "the device is a CPU, which Triton serves only under its interpreter (TRITON_INTERPRET=1)"
    return _gpu_problem()


def environment() -> dict[str, str | int]:
    """What a tuned configuration depends on besides the problem: GPU, capability and Triton version."""
    toolchain = f"triton {version('triton')}"
    if _gpu_problem() is not None:
        return {"device": "interpreter", "capability": "interpreter", "threads": 0, "toolchain": toolchain}
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    if torch.version.hip is not None:
        capability = f"hip:{properties.gcnArchName.split(':')[0]}"
    else:
        capability = f"cuda:{properties.major}{properties.minor}"
    return {"device": properties.name, "capability": capability, "threads": 0, "toolchain": toolchain}


class StepGroup:
    """Steps a group of tensors on one device in four launches; phases as in `sonew.dispatch.StepGroup`.

    Args:
        leaves: the tensors with their state, of the plan's type and contiguous, all on one device.
        plan: its `config` is a point of `sonew_kernels.spec.TRITON`.
        direction: scratch for the direction, of the plan's type, at least `direction_elements(lengths)`; made here where None.
        counted: whether columns that fall back are counted.
    """

    def __init__(self, leaves: Sequence[Leaf], plan: Plan, *, direction: torch.Tensor | None = None, counted: bool = False) -> None:
        config, band, spec = plan.config.as_dict(), plan.problem.band, SPECS[KERNEL]
        tile, update_tile = spec.tile(config, band), spec.update_tile(config, band)
        self.table = GroupTable(leaves, plan.problem, tile=tile, update_tile=update_tile, direction=direction)
        self._kernels = _kernels()
        self._graft, self._stochastic = Graft.NONE, False
        self._launched: tuple[Graft, bool, torch.Tensor] | None = None  # what the last step's kernels were compiled for
        launches = triton_launches(config, band)
        programs = {
            "prologue": -(-len(self.table.tiles) // launches["prologue"].unit),
            "direction": len(self.table.tiles),
            "norms": len(leaves),
            "update": len(self.table.update_tiles),
        }
        chained = any(leaf.chain < leaf.whole for leaf in leaves)
        pieces = any(leaf.is_piece for leaf in leaves)
        stored = {name: int(Storage[getattr(plan.problem, f"{name}_dtype").upper()]) for name in ("param", "grad", "state", "direction")}
        state, scratch = {"STATE_STORAGE": stored["state"]}, {"DIRECTION_STORAGE": stored["direction"]}
        extra = {
            "prologue": state,
            "direction": {"CHAINED": chained, "PIECES": pieces, "COUNTED": counted, "GRAD_STORAGE": stored["grad"], **state, **scratch},
            "update": {"STORAGE": stored["param"], **scratch},
        }
        self._grids = {name: (count,) for name, count in programs.items()}
        self._options: dict[str, dict[str, Any]] = {
            name: {**COMPILE_OPTIONS, **launch.constants, **extra.get(name, {}), "num_warps": launch.num_warps}
            for name, launch in launches.items()
        }
        on_gpu = self.table.device.type == "cuda"
        self._device: AbstractContextManager[object] = torch.cuda.device(self.table.device) if on_gpu else nullcontext()

    def set_hyper(self, hyper: Hyper, lr: torch.Tensor | None = None) -> None:
        """Settings for the coming steps; only another choice means another compiled kernel. `lr`: see `GroupTable.set_hyper`."""
        self.table.set_hyper(hyper, lr)
        self._graft, self._stochastic = Graft[hyper.graft.upper()], hyper.stochastic_rounding

    def bind(self, grads: Sequence[torch.Tensor | None]) -> None:
        """This step's gradients; None leaves the tensor alone."""
        self.table.bind(grads)

    def signal(self, grad_scale: torch.Tensor | None, skip: torch.Tensor | None) -> None:
        """The loss scale and whether the step is skipped (`GroupTable.signal`)."""
        self.table.signal(grad_scale, skip)

    def prepare_capture(self) -> None:
        """Allocate what the next capture needs; outside captures only."""
        self.table.prepare_capture()

    def capture_problem(self, hyper: Hyper, lr: torch.Tensor | None, grads: Sequence[torch.Tensor | None]) -> str | None:
        """Why a step with these settings and gradients cannot be captured now, with the fix, or None."""
        device = self.table.device
        if device.type == "cuda" and device.index != torch.cuda.current_device():
            return f"its tensors are on {device}, the capture is not: enter torch.cuda.device({device.index}) before it"
        if reason := self.table.capture_problem(hyper, lr, grads):
            return reason
        now = (self._graft, self._stochastic, self.table.lr)
        if self._launched is None or not all(map(operator.is_, self._launched, now)):
            return "its kernels have not run with these settings yet, and a capture cannot compile or load them: take one eager step first"
        return None

    def capture(self, grads: Sequence[torch.Tensor | None]) -> AbstractContextManager[None]:
        """In place of `bind`, around the phases: what is launched inside may be recorded by a CUDA graph."""
        return self.table.capture(grads)

    def _launch(self, name: str, *arguments: torch.Tensor | int, **constants: int) -> None:
        with self._device:
            getattr(self._kernels, name)[self._grids[name]](*arguments, **constants, **self._options[name])

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
        """Count the steps, form the corrections, save the old momentum and stats around tile borders."""
        t = self.table
        self._launch("prologue", t.rows, t.tiles, t.hyper, t.corrections, t.edges, len(t.tiles))

    def direction(self) -> None:
        """Advance the state and form each tensor's direction and partial norms."""
        t = self.table
        buffers = (t.hyper, t.corrections, t.edges, t.outer, t.direction, t.partials)
        self._launch("direction", t.rows, t.tiles, *buffers, GRAFT=int(self._graft))

    def norms(self) -> None:
        """Reduce the partial norms to each tensor's scale."""
        t = self.table
        self._launch("norms", t.rows, t.partials, t.scales, GRAFT=int(self._graft))

    def update(self) -> None:
        """Step the parameters."""
        t = self.table
        self._launch("update", t.rows, t.update_tiles, t.hyper, t.lr, t.direction, t.scales, STOCHASTIC=self._stochastic)
        self._launched = self._graft, self._stochastic, t.lr
        t.unstage()
