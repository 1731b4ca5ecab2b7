"""The settings of a torch parameter group: checked when given, and again only when one of them was changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, Final

import torch

from sonew.config import DIRECTION_DTYPES, STATE_DTYPES, Hyper, default_gamma
from sonew.dispatch import check_request
from sonew.errors import InvalidConfigError
from sonew.torch.groups import LaunchGroup
from sonew.torch.planning import check_param, dtype_name

NAMES: Final = (
    *("lr", "betas", "eps", "weight_decay", "band", "eps_rel", "gamma", "graft", "chain"),
    *("decoupled_weight_decay", "maximize", "stochastic_rounding"),
)
IMPLEMENTATIONS: Final = {  # torch's names for how a step is made: (what is allowed, the fix)
    "foreach": ((None, False), "Use foreach=None: one launch serves the whole group already."),
    "fused": ((None, True, False), "Use fused=None; False leaves unscaling to torch.amp.GradScaler."),
    "differentiable": ((False,), "Use differentiable=False: nothing differentiates through a step."),
}
SWITCHES: Final = {
    "capturable": "Pass True to capture steps in CUDA graphs.",
    "skip_nonfinite": "Pass True to skip steps whose gradients are not finite.",
    "counters": "Pass True to count columns that fall back.",
}
TYPES: Final = {"state_dtype": STATE_DTYPES, "direction_dtype": DIRECTION_DTYPES}
OPTIONS: Final = (*IMPLEMENTATIONS, *SWITCHES, *TYPES, "seed")


def _same(one: object, other: object) -> bool:
    """Whether a setting stayed; tensors by identity, because comparing a GPU's values would wait for it."""
    return one is other or not (isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor) or one != other)


def _check_lr(lr: torch.Tensor) -> None:
    if lr.numel() != 1 or not lr.is_floating_point():
        msg = (
            f"lr is a tensor of shape {tuple(lr.shape)} and type {lr.dtype}, which is not allowed: it must be a float, or a real "
            "floating tensor of one element. Pass for example lr=torch.tensor(1e-3, device=...), float32 on the parameters' device."
        )
        raise InvalidConfigError(msg)


def _check_options(group: Mapping[str, Any]) -> None:
    for name, fix in SWITCHES.items():
        if not isinstance(group[name], bool):
            msg = f"{name}={group[name]!r} is not allowed: it must be True or False. {fix}"
            raise InvalidConfigError(msg)
    for name, allowed in TYPES.items():
        if group[name] not in allowed:
            msg = f"{name}={group[name]!r} is not one of {list(allowed)}. Use 'float32'."
            raise InvalidConfigError(msg)
    for name, (allowed_values, fix) in IMPLEMENTATIONS.items():
        if not any(group[name] is value for value in allowed_values):
            msg = f"{name}={group[name]!r} is not allowed: it must be one of {list(allowed_values)}. {fix}"
            raise InvalidConfigError(msg)
    seed = group["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**64:
        msg = f"seed={seed!r} is not allowed: it must be an integer in [0, 2^64). Pass for example seed=0."
        raise InvalidConfigError(msg)


@dataclass(slots=True)
class Settings:
    """A group's settings as values.

    Attributes:
        values: what the group held, in the order of `NAMES` and `OPTIONS`; lists as tuples, since they can be changed in place, unseen.
        hyper: the numbers and choices. Where `lr` is a tensor, `hyper.lr` is the last number known, which device code that
            reads the tensor does not look at.
        lr: the step size where it is a tensor: one element, any real floating type, any device.
    """

    values: tuple[Any, ...]
    hyper: Hyper
    lr: torch.Tensor | None

    @classmethod
    def of(cls, group: Mapping[str, Any], before: Settings | None = None) -> Settings:
        """A group's settings; `before`: those until now, which are returned if nothing changed.

        Raises:
            InvalidConfigError: a setting outside its range. The value of a tensor `lr` is not looked at.
        """
        values = tuple(tuple(value) if isinstance(value, list) else value for value in map(group.__getitem__, (*NAMES, *OPTIONS)))
        if before is not None and all(map(_same, values, before.values)):
            return before
        _check_options(group)
        named: dict[str, Any] = dict(zip(NAMES, values, strict=False))
        lr, betas = named["lr"], named.pop("betas")
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            msg = f"betas={betas!r} is not allowed: it must be a pair of numbers in [0, 1). Pass for example betas=(0.9, 0.99)."
            raise InvalidConfigError(msg)
        if not isinstance(lr, torch.Tensor):
            return cls(values, Hyper(beta1=betas[0], beta2=betas[1], **named), None)
        _check_lr(lr)
        named["lr"] = Hyper().lr if before is None else before.hyper.lr  # graphs captured while lr was a number go on with that
        return cls(values, Hyper(beta1=betas[0], beta2=betas[1], **named), lr)

    def read(self) -> Hyper:
        """The settings as numbers: a tensor `lr` is read, for which the host waits if it lies on a GPU.

        Raises:
            InvalidConfigError: its value is outside the range.
        """
        if self.lr is not None and (value := self.lr.item()) != self.hyper.lr:
            self.hyper = replace(self.hyper, lr=value)
        return self.hyper

    def bring_to(self, launch: LaunchGroup) -> None:
        """Make them the launch group's settings for its coming steps; changed numbers are brought to its device."""
        if launch.capturable is not None and self.lr is not None and launch.reads(self.lr):
            launch.capturable.set_hyper(self.hyper, self.lr)
        else:
            launch.stepper.set_hyper(self.read())


def built_in(kind: type) -> dict[str, Any]:
    """The options of an optimizer class with the defaults of its constructor; types become names."""
    taken = {name: parameter.default for name, parameter in signature(kind).parameters.items() if name != "params"}
    return {**taken, **{name: dtype_name(taken[name]) for name in ("state_dtype", "direction_dtype")}}


def fill_gamma(group: dict[str, Any]) -> None:
    """Give a group whose `gamma` is None its default."""
    if group["gamma"] is None:
        group["gamma"] = default_gamma(dtype_name(group["state_dtype"]), group["betas"][1], group["band"])


def check_group(group: dict[str, Any]) -> None:
    """Refuse a new group's settings or parameters; types become names, `betas` a tuple, a `gamma` of None its default.

    Raises:
        InvalidConfigError: a setting outside its range.
        UnsupportedProblemError: a parameter that cannot be stepped.
    """
    for name in TYPES:
        group[name] = dtype_name(group[name])
    settings = Settings.of(group if group["gamma"] is not None else {**group, "gamma": 0.0})
    if settings.lr is not None and settings.lr.device.type == "cpu":
        settings.read()
    group["betas"] = tuple(group["betas"])
    check_request(group["backend"], group["tuning"])
    fill_gamma(group)
    if len(set(group["params"])) < len(group["params"]):
        msg = "some parameters appear more than once in a parameter group, and would be stepped twice at once: pass each tensor once."
        raise InvalidConfigError(msg)
    for param in group["params"]:
        check_param(param)
