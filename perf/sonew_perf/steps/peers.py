"""The optimizers of one case, over the same parameters: eager, as a CUDA graph, and SONew's direction phase alone.

All methods of a case share parameters and gradients, and a method's graph shares the state of its eager form: a model of a billion
parameters must fit with all its peers. Learning rates are so small that the parameters stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from sonew.torch import SONew
from sonew_autotune.measure import Work, copy_roof
from sonew_kernels.spec import STORAGE_BYTES
from sonew_kernels.traffic import direction_bytes
from sonew_perf.steps.cases import TimedCase, phase_works
from sonew_perf.steps.compiled import CompiledSonew
from sonew_perf.steps.graphs import capture
from sonew_perf.steps.workloads import LR

EAGER: Final = "eager"
GRAPH: Final = "graph"
DIRECTION: Final = "direction"
BACKENDS: Final[Mapping[str, str]] = {"cuda": "triton", "cpu": "cpu"}  # named, because an explicit backend never falls back
STATE_NOTES: Final[Mapping[str, str]] = {"float32": "", "bfloat16": " bf16"}
WARM_UP_STEPS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method of a case.

    Attributes:
        family: a key of `FAMILIES`, or `COPY`.
        band: of SONew and its compiled and plain forms.
        state: type of state and direction, "float32" or "bfloat16".
        ways: how it is timed: "eager", "graph", "direction".
        compiler: of the compiled form.
    """

    family: str
    band: int | None = None
    state: str = "float32"
    ways: tuple[str, ...] = (EAGER, GRAPH)
    compiler: str = "inductor"

    @property
    def label(self) -> str:
        """Family, band and type."""
        return f"{self.family}{'' if self.band is None else f' band {self.band}'}{STATE_NOTES[self.state]}"

    def case(self, way: str) -> str:
        """Name of the method timed in one way, unique in a case."""
        return self.family if self.family == COPY else f"{self.label}, {way}"

    @property
    def case_names(self) -> tuple[str, ...]:
        """Names of all its ways."""
        return tuple(self.case(way) for way in self.ways)


COPY: Final = "copy"
FUSED: Final = "AdamW fused"
FOREACH: Final = "AdamW foreach"
SONEW: Final = "SONew"
COMPILED: Final = "torch.compile"
REFERENCE: Final = "reference"

Params = Sequence[torch.Tensor]


@dataclass(frozen=True, slots=True)
class Family:
    """How the optimizers of a family are made.

    Attributes:
        make: from (method, parameters, capturable).
        twin: whether the graph needs an optimizer of its own, made capturable; else one serves both ways.
    """

    make: Callable[[Method, Params, bool], torch.optim.Optimizer]
    twin: bool = True


def _sonew(method: Method, params: Params, backend: str, *, capturable: bool) -> torch.optim.Optimizer:
    return SONew(
        params,
        lr=LR,
        band=method.band or 0,
        state_dtype=method.state,
        direction_dtype=method.state,
        backend=backend,
        capturable=capturable,
    )


FAMILIES: Final[Mapping[str, Family]] = {
    FUSED: Family(lambda _, params, capturable: torch.optim.AdamW(params, lr=LR, fused=True, capturable=capturable)),
    FOREACH: Family(lambda _, params, capturable: torch.optim.AdamW(params, lr=LR, foreach=True, capturable=capturable)),
    SONEW: Family(lambda m, params, capturable: _sonew(m, params, BACKENDS[params[0].device.type], capturable=capturable)),
    COMPILED: Family(lambda m, params, _: CompiledSonew(params, lr=LR, band=m.band or 0, compiler=m.compiler), twin=False),
    REFERENCE: Family(lambda m, params, capturable: _sonew(m, params, REFERENCE, capturable=capturable)),
}


def _same_state(optimizer: torch.optim.Optimizer, twin: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The twin working on the optimizer's state; what a capturable one wants on the device is brought there."""
    for param, state in optimizer.state.items():
        twin.state[param] = {name: value.to(param.device) for name, value in state.items()}
    return twin


@dataclass(slots=True)
class Prepared:
    """A method over parameters that have gradients, stepped a few times, ready to be timed in its ways.

    Attributes:
        method, params: what it is and what it steps.
        optimizer: the eager form; None for the copy.
    """

    method: Method
    params: Params
    optimizer: torch.optim.Optimizer | None

    def timed(self, way: str) -> TimedCase:
        """One way of it.

        Raises:
            RuntimeError: a step that cannot be captured, no memory, or no direction phase of its own.
        """
        method, settings = self.method, self._settings(way)
        if self.optimizer is None:
            work: Work = copy_roof(sum(param.numel() for param in self.params), device=self.params[0].device.type)
            return TimedCase(name=method.case(way), work=work, optimizer=None, settings=settings)
        if way == DIRECTION:
            return TimedCase(name=method.case(way), work=self._direction(), optimizer=None, settings=settings)
        on_cpu = self.params[0].device.type == "cpu"
        if way == EAGER or on_cpu:
            counted = method.family != COMPILED or not on_cpu
            return TimedCase(name=method.case(way), work=self.optimizer.step, optimizer=self.optimizer, settings=settings, counted=counted)
        family = FAMILIES[method.family]
        twin = _same_state(self.optimizer, family.make(method, self.params, True)) if family.twin else self.optimizer  # noqa: FBT003
        recorded = capture(twin.step)
        return TimedCase(name=method.case(way), work=recorded.work, optimizer=twin, settings=settings, pool_bytes=recorded.pool_bytes)

    def _direction(self) -> Work:
        works = phase_works(self.optimizer) if isinstance(self.optimizer, SONew) else {}
        if DIRECTION not in works:
            msg = f"{self.method.label} has no direction phase of its own here"
            raise RuntimeError(msg)
        works["prologue"]()  # without its corrections the direction would work on NaN
        return works[DIRECTION]

    def _settings(self, way: str) -> dict[str, str | int]:
        method = self.method
        settings: dict[str, str | int] = {"family": method.family, "way": way, "state": method.state}
        if method.band is not None:
            settings["band"] = method.band
        if way == GRAPH and self.params[0].device.type == "cpu":
            settings["launched"] = "eager: a CPU has no graphs"
        if way == DIRECTION and method.band is not None:
            size = STORAGE_BYTES[method.state]
            elements = sum(param.numel() for param in self.params)
            settings["bytes"] = elements * direction_bytes(method.band, state_bytes=size, direction_bytes=size)
        return settings


def prepare(method: Method, params: Params) -> Prepared:
    """Make a method's optimizer and take its first steps.

    Raises:
        SonewError: the backend cannot step it here.
        RuntimeError: no memory.
    """
    if method.family == COPY:
        return Prepared(method, params, None)
    optimizer = FAMILIES[method.family].make(method, params, False)  # noqa: FBT003  # a row's signature
    for _ in range(WARM_UP_STEPS):
        optimizer.step()
    return Prepared(method, params, optimizer)
