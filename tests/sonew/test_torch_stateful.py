"""Programs of anything that may be done to the optimizer, and faults that such programs must find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from sonew.backends import cpu_torch, reference_torch, table
from sonew.torch import launches, optimizer, state
from sonew.torch.settings import Settings
from sonew.torch.signals import Signals
from tests.sonew.torch_machine import Machine

EXPLORES: Final = settings().max_examples == settings.get_profile("explore").max_examples
PROGRAMS: Final = settings(
    max_examples=2000 if EXPLORES else 200,
    stateful_step_count=20,
    suppress_health_check=[HealthCheck.too_slow],  # timings vary with load
)
# Whoever finds a fault need not make its program short.
HUNT: Final = settings(PROGRAMS, derandomize=True, database=None, phases=[Phase.generate], report_multiple_bugs=False)


def load_without_copying(target: torch.optim.Optimizer, loaded: Mapping[str, Any]) -> None:
    params = [param for group in target.param_groups for param in group["params"]]
    for index, held in loaded["state"].items():
        target.state[params[index]].update(held)


def bind_zeros(self: cpu_torch.StepGroup, grads: Sequence[torch.Tensor | None]) -> None:
    pairs = zip(self.table.leaves, grads, strict=True)
    self.table.bind([torch.zeros_like(leaf.param) if grad is None else grad for leaf, grad in pairs])


def fit_nothing(param: torch.Tensor, held: dict[str, Any], band: int) -> None:
    if "stats" in held:
        held["stats"] = torch.zeros((band + 1, *param.shape))


FAULTS: Final[dict[str, tuple[object, str, Any]]] = {
    "steps uncounted": (reference_torch.StepGroup, "prologue", lambda _: None),
    "steps without a gradient": (cpu_torch.StepGroup, "bind", bind_zeros),
    "decay of the wrong sign": (table, "step_decay", lambda hyper: -hyper.weight_decay if hyper.decoupled_weight_decay else 0.0),
    "decay both ways": (table, "step_decay", lambda hyper: hyper.weight_decay),
    "ungrafted": (cpu_torch.StepGroup, "norms", lambda self: self.table.scales.fill_(1.0)),
    "strided parameters not written": (table.GroupTable, "unstage", lambda _: None),
    "no loss scale": (table.GroupTable, "signal", lambda *_: None),
    "no step skipped": (optimizer, "gather_signals", lambda scale, *_: Signals(scale)),
    "tensor lr unread": (Settings, "read", lambda self: self.hyper),
    "plans that outlive their band": (launches, "PLANNED", tuple(name for name in launches.PLANNED if name != "band")),
    "plans that outlive their chains": (launches, "PLANNED", tuple(name for name in launches.PLANNED if name != "chain")),
    "another band forgets": (launches, "fit_band", fit_nothing),
    "state loaded by torch": (state, "_restore_types", lambda *_: None),
    "state shared with its checkpoint": (state, "_restore_types", load_without_copying),
    "decay not loaded": (optimizer, "KEPT", (*state.KEPT, "weight_decay")),
}


def test_programs_of_all_kinds() -> None:
    """Parameters and state are the model's after every step; nothing else moves a bit."""
    run_state_machine_as_test(Machine, settings=PROGRAMS)


@pytest.mark.parametrize("name", FAULTS)
def test_the_fault_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, attribute, fault = FAULTS[name]
    monkeypatch.setattr(target, attribute, fault)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Machine, settings=HUNT)
