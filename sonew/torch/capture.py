"""CUDA graphs of whole steps: when one is being captured, what is refused then, and what captured graphs go on to need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from sonew.config import Hyper
from sonew.errors import CaptureError
from sonew.torch.groups import LaunchGroup
from sonew.torch.settings import Settings
from sonew.torch.signals import Signals

CHOICES: Final = ("band", "graft", "chain", "stochastic_rounding", "decoupled_weight_decay", "maximize")  # the numbers lie in device memory


def is_capturing() -> bool:
    """Whether the current stream is recorded into a CUDA graph. A process that uses no GPU is not asked for one."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def check_capturable(groups: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to capture groups that were not said to be capturable, in torch's own words."""
    if not all(group["capturable"] for group in groups):
        msg = (
            "Attempting CUDA graph capture of step() for an instance of SONew but param_groups' capturable is False. "
            "Pass capturable=True and take one eager step before the capture."
        )
        raise CaptureError(msg)


def check_launch(launch: LaunchGroup, settings: Settings) -> None:
    """Refuse to capture launches that a graph could not repeat, with CaptureError."""
    if launch.capturable is None:
        msg = f"backend={launch.plan.backend!r} cannot be captured in a CUDA graph: it works on the host. Use backend='triton' on a GPU."
        raise CaptureError(msg)
    if launch.neighbours is not None:
        msg = "sharded parameters cannot be captured in a CUDA graph: their step holds collectives. Capture the rest, or step eagerly."
        raise CaptureError(msg)
    if not settings.hyper.decoupled_weight_decay and settings.hyper.weight_decay:
        msg = "coupled weight decay cannot be captured in a CUDA graph: use decoupled_weight_decay=True, or step eagerly."
        raise CaptureError(msg)
    lr = settings.lr
    if lr is not None and not launch.reads(lr):
        msg = (
            f"lr is a {lr.dtype} tensor on {lr.device}, which a graph cannot read: pass a torch.float32 tensor on {launch.device}, "
            "or a float, and take one eager step before the capture."
        )
        raise CaptureError(msg)
    if reason := launch.capturable.capture_problem(settings.hyper, lr, launch.grads()):
        msg = f"the step cannot be captured: {reason}."
        raise CaptureError(msg)


@dataclass(slots=True)
class _Held:
    """What the graphs captured from one parameter group hold.

    Attributes:
        hyper, lr: its settings in the last capture.
        launches: every launch group that a graph holds, also of plans that were replaced since.
    """

    hyper: Hyper
    lr: torch.Tensor | None
    launches: list[LaunchGroup] = field(default_factory=list)


class Captures:
    """An optimizer's captures by parameter group. What graphs read stays allocated as long as this object."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}

    def step(self, index: int, launch: LaunchGroup, settings: Settings, signals: Signals) -> None:
        """Launch one step of a launch group that `check_launch` let pass, with a table of its own for the graph."""
        held = self._held.setdefault(index, _Held(settings.hyper, settings.lr))
        held.hyper, held.lr = settings.hyper, settings.lr
        if all(known is not launch for known in held.launches):
            held.launches.append(launch)
        if launch.capturable is not None:
            grads = launch.grads()
            with launch.capturable.capture(grads):
                launch.run(grads, settings.hyper, *signals.on(launch.device))
                launch.capturable.signal(None, None)  # a replay leaves none to the eager steps and graphs that follow it

    def launches(self, index: int, settings: Settings) -> list[LaunchGroup]:
        """The launch groups that graphs hold of a parameter group.

        Raises:
            CaptureError: the last capture holds another choice than the settings, which no upload can change.
        """
        held = self._held.get(index)
        if held is None:
            return []
        for name in CHOICES:
            old, new = getattr(held.hyper, name), getattr(settings.hyper, name)
            if old != new:
                msg = f"{name}={new!r} cannot reach a step captured with {name}={old!r}: capture it again after an eager step."
                raise CaptureError(msg)
        if held.lr is not settings.lr:
            msg = "a captured step reads the lr of its capture: fill that tensor in place, or capture again after an eager step."
            raise CaptureError(msg)
        return held.launches
