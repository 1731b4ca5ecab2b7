"""The optimizers that are trained with: ours, torch's, and those of the package pytorch-optimizer (extra `peers`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

import torch
from torch import nn

from sonew.errors import InvalidConfigError
from sonew.torch import SONew, param_groups
from sonew_perf.training import ideas
from sonew_perf.training.settings import Settings

PRECISIONS: Final[Mapping[str, str]] = {
    "fp32": "parameters and state in float32",
    "bf16-state": "parameters in float32, SONew's state in bfloat16",
    "bf16": "parameters, activations and state in bfloat16",
    "bf16-rounded": "as bf16, SONew writes parameters rounded stochastically",
}
EVERY_METHODS: Final = ("fp32", "bf16")  # the others are SONew's
SOAP_EVERY: Final = 10  # steps between two of SOAP's eigenbases, its package's default
SHAMPOO_EVERY: Final = 20  # steps between two of Shampoo's roots, the paper's cheaper choice
SHAMPOO_BLOCK: Final = 1024  # as large as the autoencoder's layers: nothing is cut
SHAMPOO_GRAFT: Final = 3  # the package's number for RMSProp, whose norm a tensor's update takes


class Several:
    """Optimizers that step together, each its own parameters; a learning rate written into `param_groups` reaches all."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = tuple(parts)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of all of them."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> dict[torch.Tensor, Any]:
        """Of all of them."""
        return {param: state for part in self.parts for param, state in part.state.items()}

    def step(self) -> None:
        """Step each."""
        for part in self.parts:
            part.step()


Optimizer = torch.optim.Optimizer | Several


def _sonew(model: nn.Module, settings: Settings, precision: str) -> Optimizer:
    if settings.idea != "none":
        return ideas.build(model, settings)
    params: Any = model.parameters()
    if settings.layers == "no-embeddings":
        params = param_groups(model, settings.weight_decay, no_decay=(), decay_vectors=True)  # decay as without groups
    narrow = "float32" if precision == "fp32" else "bfloat16"
    return SONew(
        params,
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        band=settings.band,
        chain=settings.chain,  # type: ignore[arg-type]  # SONew checks it
        eps_rel=settings.eps_rel,
        gamma=settings.gamma,
        graft=settings.graft,  # type: ignore[arg-type]  # SONew checks it
        state_dtype=narrow,
        direction_dtype=narrow,
        stochastic_rounding=precision == "bf16-rounded",
    )


def _adam(model: nn.Module, settings: Settings, _precision: str) -> Optimizer:
    return torch.optim.Adam(model.parameters(), lr=settings.lr, betas=(settings.beta1, settings.beta2), eps=settings.eps, fused=True)


def _adamw(model: nn.Module, settings: Settings, _precision: str) -> Optimizer:
    betas = (settings.beta1, settings.beta2)
    return torch.optim.AdamW(
        model.parameters(), lr=settings.lr, betas=betas, eps=settings.eps, weight_decay=settings.weight_decay, fused=True
    )


def _sgd(model: nn.Module, settings: Settings, _precision: str) -> Optimizer:
    """Heavy ball: the momentum is a sum of gradients, not a mean, so that the rate in effect is lr / (1 - beta1)."""
    return torch.optim.SGD(model.parameters(), lr=settings.lr, momentum=settings.beta1, fused=True)


def _rmsprop(model: nn.Module, settings: Settings, _precision: str) -> Optimizer:
    """With heavy-ball momentum, as `_sgd`: where Adam is best with lr, this is with about (1 - beta1) lr."""
    return torch.optim.RMSprop(model.parameters(), lr=settings.lr, alpha=settings.beta2, eps=settings.eps, momentum=settings.beta1)


def _adagrad(model: nn.Module, settings: Settings, _precision: str) -> Optimizer:
    return torch.optim.Adagrad(model.parameters(), lr=settings.lr, eps=settings.eps, fused=True)


def _muon(model: nn.Module, settings: Settings, _precision: str) -> Optimizer:
    """Matrices by Muon, scaled so that one rate serves Adam for the rest too: embeddings, as Muon's authors advise, and vectors.

    Adam has its own defaults and no decay.
    """
    embeddings = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    matrices = [param for param in model.parameters() if param.ndim == 2 and param not in embeddings]
    others = [param for param in model.parameters() if param.ndim != 2 or param in embeddings]
    muon = torch.optim.Muon(
        matrices, lr=settings.lr, momentum=settings.beta1, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return Several([muon, torch.optim.Adam(others, lr=settings.lr, fused=True)])


def _soap(model: nn.Module, settings: Settings, _precision: str) -> Optimizer:
    """Its first step only looks: no parameter moves."""
    from pytorch_optimizer import SOAP  # noqa: PLC0415  # an extra

    betas = (settings.beta1, settings.beta2)
    made: Optimizer = SOAP(
        model.parameters(),
        lr=settings.lr,
        betas=betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        precondition_frequency=SOAP_EVERY,
    )
    return made


def _shampoo(model: nn.Module, settings: Settings, _precision: str) -> Optimizer:
    """eps is the ridge of its matrices; they are used from step 25 on, its package's default."""
    from pytorch_optimizer import ScalableShampoo  # noqa: PLC0415  # an extra

    made: Optimizer = ScalableShampoo(
        model.parameters(),
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        moving_average_for_momentum=True,
        weight_decay=settings.weight_decay,
        decoupled_weight_decay=True,
        preconditioning_compute_steps=SHAMPOO_EVERY,
        block_size=SHAMPOO_BLOCK,
        matrix_eps=settings.eps,
        graft_type=SHAMPOO_GRAFT,
        nesterov=False,
    )
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way to train.

    Attributes:
        label: for tables; of a method with a band it is followed by the band.
        build: the optimizer of (model, settings, precision).
        uses: fields of `Settings` that it takes. searched: those of them that a search varies.
        package: what must be installed, or "".
        precisions: keys of `PRECISIONS` that it comes in.
    """

    label: str
    build: Callable[[nn.Module, Settings, str], Optimizer]
    uses: tuple[str, ...]
    searched: tuple[str, ...]
    package: str = ""
    precisions: tuple[str, ...] = EVERY_METHODS

    @property
    def has_band(self) -> bool:
        """Whether it is told apart by its band."""
        return "band" in self.uses


_RATES: Final = ("lr", "beta1", "beta2", "eps")
_SONEW: Final = (*_RATES, "weight_decay", "band", "chain", "eps_rel", "gamma", "graft", "layers", "idea")

METHODS: Final[Mapping[str, Method]] = {
    "sonew": Method(label="SONew", build=_sonew, uses=_SONEW, searched=_RATES, precisions=tuple(PRECISIONS)),
    "adam": Method(label="Adam", build=_adam, uses=_RATES, searched=_RATES),
    "adamw": Method(label="AdamW", build=_adamw, uses=(*_RATES, "weight_decay"), searched=(*_RATES, "weight_decay")),
    "sgd": Method(label="SGD with momentum", build=_sgd, uses=("lr", "beta1"), searched=("lr", "beta1")),
    "rmsprop": Method(label="RMSprop", build=_rmsprop, uses=_RATES, searched=_RATES),
    "adagrad": Method(label="Adagrad", build=_adagrad, uses=("lr", "eps"), searched=("lr", "eps")),
    "muon": Method(label="Muon", build=_muon, uses=("lr", "beta1", "weight_decay"), searched=("lr", "beta1")),
    "soap": Method(label="SOAP", build=_soap, uses=(*_RATES, "weight_decay"), searched=_RATES, package="pytorch_optimizer"),
    "shampoo": Method(label="Shampoo", build=_shampoo, uses=(*_RATES, "weight_decay"), searched=_RATES, package="pytorch_optimizer"),
}


def check(method: str, precision: str) -> None:
    """Refuse what cannot be trained here.

    Raises:
        InvalidConfigError: the method does not come in this precision, or its package is missing.
    """
    row = METHODS[method]
    if precision not in row.precisions:
        allowed = list(row.precisions)
        msg = f"precision={precision!r} is not allowed with {method}: it must be one of {allowed}. Pass --precision fp32, or leave it out."
        raise InvalidConfigError(msg)
    if row.package and find_spec(row.package) is None:
        msg = f"method={method!r} needs the package {row.package}, which is not installed. Run pip install 'sonew[peers]', or leave it out."
        raise InvalidConfigError(msg)


def parameter_dtype(precision: str) -> torch.dtype:
    """Of a model's parameters in a precision."""
    return torch.float32 if precision in {"fp32", "bf16-state"} else torch.bfloat16


def check_settings(method: str, settings: Settings, precision: str) -> None:
    """Refuse before anything is trained what the method's optimizer will refuse.

    Raises:
        InvalidConfigError: as `build`.
    """
    build(method, nn.Linear(2, 2, dtype=parameter_dtype(precision)), settings, precision)


def build(method: str, model: nn.Module, settings: Settings, precision: str, *, counters: bool = False) -> Optimizer:
    """The method's optimizer over a model.

    Args:
        method: key of `METHODS`. model: on its device, in the precision's type. settings: those that the method uses are taken.
        precision: key of `PRECISIONS`. counters: whether SONew counts the columns that fall back.

    Raises:
        InvalidConfigError: as `check`, or a setting that SONew refuses.
    """
    check(method, precision)
    made = METHODS[method].build(model, settings, precision)
    if counters and isinstance(made, SONew):
        for group in made.param_groups:
            group["counters"] = True
    return made


def state_bytes(optimizer: Optimizer) -> int:
    """Bytes of every tensor in the optimizer's state, also those in collections and in objects that hold them; each counts once."""
    total, seen = 0, set()
    left: list[object] = list(optimizer.state.values())
    while left:
        value = left.pop()
        if id(value) in seen or isinstance(value, type):
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            total += value.nbytes
        elif isinstance(value, Mapping):
            left += value.values()
        elif isinstance(value, list | tuple):
            left += value
        elif hasattr(value, "__dict__"):
            left += vars(value).values()
    return total
