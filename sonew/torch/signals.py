"""What a step learns on the device: the loss scale, and whether it is skipped. The host waits for neither."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch.nn.utils import get_total_norm

from sonew.errors import CaptureError, InvalidConfigError
from sonew.torch.shards import is_dtensor, local_of


@dataclass(slots=True)
class Signals:
    """One step's loss scale and skip flag, each one element on some device, or None; copies for other devices are made once.

    Attributes:
        grad_scale: gradients are divided by it.
        skip: float32, not 0 where nothing may move.
    """

    grad_scale: torch.Tensor | None = None
    skip: torch.Tensor | None = None
    _copies: dict[torch.device, tuple[torch.Tensor | None, torch.Tensor | None]] = field(default_factory=dict)

    def on(self, device: torch.device) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """(grad_scale, skip) on a device."""
        if device not in self._copies:
            copies = [None if x is None else x.to(device, non_blocking=True) for x in (self.grad_scale, self.skip)]
            self._copies[device] = copies[0], copies[1]
        return self._copies[device]


class Skips:
    """How many steps were skipped, counted on the devices where that was decided."""

    def __init__(self) -> None:
        self._counts: dict[torch.device, torch.Tensor] = {}

    def count(self, signals: Signals, *, capturing: bool) -> None:
        """Count a step.

        Raises:
            CaptureError: the counter would have to be made while a step is captured, and every replay would start it anew.
        """
        if signals.skip is not None:
            device = signals.skip.device
            if device not in self._counts and capturing:
                msg = "the step cannot be captured: nothing has counted skips yet. Take one eager step with the same signals first."
                raise CaptureError(msg)
            if device not in self._counts:
                self._counts[device] = torch.zeros((), dtype=torch.int64, device=device)
            self._counts[device].add_(signals.skip != 0)

    def total(self) -> int:
        """All skips; the host waits for the devices."""
        return int(sum(count.item() for count in self._counts.values()))


def nonfinite(grads: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Whether any element is NaN or infinite: bool, one element, on `device` where there is no element; reads every gradient once.

    Squares are not formed, so large finite gradients are finite.
    """
    filled = [grad for grad in grads if grad.numel()]
    if not filled:
        return torch.zeros((), dtype=torch.bool, device=device)
    return get_total_norm(filled, float("inf")).isfinite().logical_not()  # NaN where there is one, else the largest |g|, exactly


def check_total_norm(total_norm: object) -> None:
    """Refuse what is not a tensor of one element, with InvalidConfigError."""
    if isinstance(total_norm, torch.Tensor) and total_norm.numel() == 1:
        return
    found = f"a tensor of shape {tuple(total_norm.shape)}" if isinstance(total_norm, torch.Tensor) else repr(total_norm)
    msg = f"total_norm={found} is not allowed: it must be a tensor of one element, as torch.nn.utils.clip_grad_norm_ returns it."
    raise InvalidConfigError(msg)


def gather_signals(
    grad_scale: torch.Tensor | None,
    found_inf: torch.Tensor | None,
    total_norm: torch.Tensor | None,
    guarded: Sequence[torch.Tensor] | None,
    groups: Iterable[dist.ProcessGroup],
    device: torch.device,
) -> Signals:
    """One step's signals.

    Args:
        grad_scale, found_inf: what `torch.amp.GradScaler` hands over, or None.
        total_norm: the gradients' norm as `clip_grad_norm_` returns it; one that is not finite skips the step.
        guarded: local gradients to be looked through, None: they are not.
        groups: processes that must decide alike, because they hold parts of the same tensors.
        device: where that is decided.
    """
    flags = []
    if found_inf is not None:
        flags.append(local_of(found_inf) != 0)
    if total_norm is not None:
        whole = total_norm.full_tensor() if is_dtensor(total_norm) else total_norm  # type: ignore[attr-defined]  # under FSDP2 a partial sum per rank
        flags.append(whole.isfinite().logical_not())
    if guarded is not None:
        flags.append(nonfinite(guarded, device))
    if not flags:
        return Signals(grad_scale)
    skip = torch.stack([flag.reshape(()).to(device) for flag in flags]).any().to(torch.float32)
    for group in groups:
        dist.all_reduce(skip, op=dist.ReduceOp.MAX, group=group)
    return Signals(grad_scale, skip)
