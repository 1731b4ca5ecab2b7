"""What is timed: the tensors of a workload, and the optimizers and roofs that work on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from sonew.backends.table import Leaf
from sonew.config import Plan, chain_length
from sonew.dispatch import load_step_group
from sonew.layout import COUNT, MOMENTUM, STATS
from sonew.torch import SONew
from sonew.torch.settings import Settings
from sonew_autotune.measure import Work, copy_roof
from sonew_autotune.problems import MODELS
from sonew_perf.steps.workloads import LR, Workload

TUNING_NOTES: Final = {"on": "", "off": ", untuned", "pinned": ", pinned"}
STATE_NOTES: Final = {"float32": "", "bfloat16": ", bf16 state"}


def whole_model(name: str) -> Workload:
    """Every tensor of a model in `sonew_autotune.problems.MODELS`."""
    return Workload(name, MODELS[name])


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedCase:
    """One line of the benchmark.

    Attributes:
        name: unique in a run.
        work: the call that is timed.
        optimizer: what `work` steps; None for a roof.
        settings: what distinguishes the case, for records.
        pool_bytes: memory that the case keeps for itself beside the optimizer: a CUDA graph's private pool.
        counted: whether its peak memory can be counted; on a CPU, what torch.compile allocates is not seen.
    """

    name: str
    work: Work
    optimizer: torch.optim.Optimizer | None
    settings: Mapping[str, str | int]
    pool_bytes: int = 0
    counted: bool = True


def fixed_tensors(workload: Workload, device: torch.device) -> list[torch.Tensor]:
    """Parameters with fixed gradients, the same numbers for every case."""
    generator = torch.Generator(device).manual_seed(0)
    params = [torch.randn(shape, device=device, generator=generator) for shape in workload.shapes]
    for param in params:
        param.grad = torch.randn(param.shape, device=device, generator=generator)
    return params


def _adamw(params: Iterable[torch.Tensor], implementation: str) -> torch.optim.AdamW:
    return torch.optim.AdamW(params, lr=LR, fused=implementation == "fused", foreach=implementation == "foreach")


def copy_case(workload: Workload, device: torch.device) -> TimedCase:
    """A copy of as many elements inside the device's memory."""
    work = copy_roof(workload.elements, device=device.type)
    return TimedCase(name="copy", work=work, optimizer=None, settings={"roof": "copy"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """A case before it is built: its name and settings are known, whatever becomes of it.

    Attributes:
        name, settings: of the `TimedCase`.
        build: makes it over a workload on a device.
    """

    name: str
    settings: Mapping[str, str | int]
    build: Callable[[Workload, torch.device], TimedCase]


def adamw_wanted(implementation: str) -> Wanted:
    """AdamW of torch, "fused" or "foreach"."""
    name, settings = f"AdamW {implementation}", {"optimizer": "AdamW", "implementation": implementation}

    def build(workload: Workload, device: torch.device) -> TimedCase:
        optimizer = _adamw(fixed_tensors(workload, device), implementation)
        return TimedCase(name=name, work=optimizer.step, optimizer=optimizer, settings=settings)

    return Wanted(name, settings, build)


def sonew_wanted(band: int, *, tuning: str = "on", backend: str = "auto", state: str = "float32") -> Wanted:
    """SONew at a band; of the state's type the settings say only what is not the default."""
    name = f"reference, band {band}" if backend == "reference" else f"SONew band {band}{TUNING_NOTES[tuning]}"
    other = {} if state == "float32" else {"state": state}
    settings: dict[str, str | int] = {"optimizer": "SONew", "band": band, "backend": backend, "tuning": tuning, **other}

    def build(workload: Workload, device: torch.device) -> TimedCase:
        optimizer = SONew(
            fixed_tensors(workload, device),
            lr=LR,
            band=band,
            tuning=tuning,  # type: ignore[arg-type]  # SONew checks the name
            backend=backend,
            state_dtype=state,
            direction_dtype=state,
        )
        return TimedCase(name=f"{name}{STATE_NOTES[state]}", work=optimizer.step, optimizer=optimizer, settings=settings)

    return Wanted(f"{name}{STATE_NOTES[state]}", settings, build)


COPY: Final = Wanted("copy", {"roof": "copy"}, copy_case)


def wanted_cases(
    bands: Sequence[int], tunings: Sequence[str] = ("on",), *, reference: bool, foreach: bool = True, state: str = "float32"
) -> list[Wanted]:
    """Every case of a run: the peers, the roof, SONew at each band and tuning mode, and the plain reference."""
    peers = [adamw_wanted(name) for name in ("fused", *(("foreach",) if foreach else ()))]
    ours = [sonew_wanted(band, tuning=tuning, state=state) for band in bands for tuning in tunings]
    plain = [sonew_wanted(band, backend="reference", state=state) for band in bands] if reference else []
    return [*peers, COPY, *ours, *plain]


def phase_works(optimizer: SONew) -> dict[str, Work]:
    """The phases of a stepped optimizer's one launch group, each callable over and over once the prologue has run.

    Empty where phases mean nothing on their own: several launch groups, or the reference, whose phases hand results on.
    """
    plans: list[Plan] = optimizer.plans()
    if len(plans) != 1 or not plans[0].config.kernel:
        return {}
    group = optimizer.param_groups[0]
    params, hyper = group["params"], Settings.of(group).read()
    states = [optimizer.state[param] for param in params]
    leaves = [
        Leaf(param, state[MOMENTUM], state[STATS], state[COUNT], chain_length(hyper.chain, tuple(param.shape)))
        for param, state in zip(params, states, strict=True)
    ]
    stepper = load_step_group(plans[0])(leaves, plans[0])
    stepper.set_hyper(hyper)
    stepper.bind([param.grad for param in params])
    return {name: getattr(stepper, name) for name in ("prologue", "direction", "norms", "update")}
