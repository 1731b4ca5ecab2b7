"""Configuration as frozen values, validated when made: the method's settings, the problem, the launch configuration."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Final, Literal, get_args

from sonew.errors import InvalidConfigError

GraftName = Literal["none", "adam", "adam_uncorrected", "sgd", "rmsprop"]
Chain = Literal["tensor", "row"] | int

GRAFTS: Final[tuple[str, ...]] = get_args(GraftName)
COMPUTE_DTYPE: Final[Mapping[str, str]] = {
    "float16": "float32",
    "bfloat16": "float32",
    "float32": "float32",
    "float64": "float64",
}
STATE_DTYPES: Final = ("float32", "bfloat16", "float64")
DIRECTION_DTYPES: Final = ("float32", "bfloat16")
FLAGS: Final[Mapping[str, str]] = {
    "decoupled_weight_decay": "Use True for AdamW's decay, False for an L2 penalty.",
    "maximize": "Use False to minimize.",
    "stochastic_rounding": "It matters for bfloat16 parameters only.",
}


def _require(name: str, value: object, allowed: str, fix: str, *, ok: bool) -> None:
    if not ok:
        msg = f"{name}={value!r} is not allowed: it must be {allowed}. {fix}"
        raise InvalidConfigError(msg)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check_number(name: str, value: object, allowed: str, fix: str, inside: Callable[[float], bool]) -> None:
    ok = _is_number(value) and math.isfinite(value) and inside(value)  # type: ignore[arg-type]  # checked by _is_number
    _require(name, value, allowed, fix, ok=ok)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyper:
    """The numbers and choices of the method (see `sonew.reference` for what each one does).

    Attributes:
        lr: step size, >= 0.
        beta1: decay of the momentum, in [0, 1).
        beta2: decay of the statistics, in [0, 1).
        eps: absolute damping of the corrected diagonal, >= 0.
        weight_decay: decay of the parameters, >= 0.
        band: off-diagonals kept, >= 0.
        eps_rel: relative damping of the corrected diagonal, >= 0.
        gamma: a pivot at or below gamma times its diagonal entry makes the column fall back, >= 0.
        graft: whose norm the direction takes.
        chain: "tensor", "row" (last axis) or an integer length: where one band ends and the next begins.
        decoupled_weight_decay: True: the decay joins the step, scaled by lr; False: it joins the gradient, as an L2 penalty does.
        maximize: climb instead of descend: the gradient is negated.
        stochastic_rounding: write bfloat16 parameters rounded stochastically (`sonew.rounding`); others are written as ever.

    Raises:
        InvalidConfigError: a value is outside its range.
    """

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    band: int = 1
    eps_rel: float = 0.0
    gamma: float = 0.0
    graft: GraftName = "adam"
    chain: Chain = "tensor"
    decoupled_weight_decay: bool = True
    maximize: bool = False
    stochastic_rounding: bool = False

    def __post_init__(self) -> None:
        """Validate every field."""
        for name in ("lr", "eps", "weight_decay", "eps_rel", "gamma"):
            _check_number(name, getattr(self, name), "a finite number >= 0", f"Pass for example {name}=1e-3.", lambda v: v >= 0)
        for name in ("beta1", "beta2"):
            fix = "Pass for example betas=(0.9, 0.99); in JAX b1=0.9, b2=0.99."
            _check_number(name, getattr(self, name), "a number in [0, 1)", fix, lambda v: 0 <= v < 1)
        band_ok = isinstance(self.band, int) and not isinstance(self.band, bool) and self.band >= 0
        _require("band", self.band, "an integer >= 0", "Use band=1 (tridiagonal) unless you have measured another.", ok=band_ok)
        _require("graft", self.graft, f"one of {list(GRAFTS)}", 'Use graft="adam" for a step scaled like Adam.', ok=self.graft in GRAFTS)
        chain_ok = self.chain in ("tensor", "row") or (isinstance(self.chain, int) and not isinstance(self.chain, bool) and self.chain >= 1)
        _require("chain", self.chain, '"tensor", "row" or an integer >= 1', 'Use chain="tensor", the paper\'s choice.', ok=chain_ok)
        for name, fix in FLAGS.items():
            value = getattr(self, name)
            _require(name, value, "True or False", fix, ok=isinstance(value, bool))


def default_gamma(state_dtype: str, beta2: float, band: int) -> float:
    """Where pivots become rounding: 0, or with bfloat16 state 2^-8 / sqrt(1 - beta2^2), at most 0.5, divided by the band.

    Averages stored stochastically in 8 bits carry about that noise relative to their size, so the pivot of a narrow window, a difference
    of averages, says nothing below it. In wider windows sound pivots are small as well, and a column that falls back loses every coupling.
    Measured: perf/sonew_perf/training/README.md.
    """
    return min(0.5, 2.0**-8 / math.sqrt(1.0 - beta2 * beta2)) / max(1, band) if state_dtype == "bfloat16" else 0.0


def chain_length(chain: Chain, shape: tuple[int, ...]) -> int:
    """Elements per chain of a tensor of this shape, at least 1; the last chain may be shorter."""
    if chain == "tensor":
        return max(1, math.prod(shape))
    if chain == "row":
        return max(1, shape[-1]) if shape else 1
    return chain


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What a plan is made for: names and sizes only, hashable, the key of every table.

    Attributes:
        device: device type, "cpu" or "cuda" (ROCm devices are called "cuda" by torch as well).
        band: off-diagonals kept.
        chain: "tensor", "row" or "block" (an integer length).
        param_dtype, grad_dtype, state_dtype, direction_dtype: storage types, for example "bfloat16"; the direction is the
            scratch between the direction phase and the update.
        total: elements of all tensors of the group.
        median: median tensor length in elements.
    """

    device: str
    band: int
    chain: Literal["tensor", "row", "block"] = "tensor"
    param_dtype: str = "float32"
    grad_dtype: str = "float32"
    state_dtype: str = "float32"
    direction_dtype: str = "float32"
    total: int
    median: int

    def __post_init__(self) -> None:
        """Validate names and sizes."""
        for name in ("param_dtype", "grad_dtype", "state_dtype"):
            value = getattr(self, name)
            _require(name, value, f"one of {list(COMPUTE_DTYPE)}", "Cast the tensor.", ok=value in COMPUTE_DTYPE)
        allowed = f"one of {list(DIRECTION_DTYPES)}"
        _require("direction_dtype", self.direction_dtype, allowed, "Use float32.", ok=self.direction_dtype in DIRECTION_DTYPES)
        _require("chain", self.chain, 'one of ["tensor", "row", "block"]', "", ok=self.chain in ("tensor", "row", "block"))
        _require("band", self.band, "an integer >= 0", "", ok=isinstance(self.band, int) and self.band >= 0)
        for name in ("total", "median"):
            value = getattr(self, name)
            _require(name, value, "an integer >= 0", "", ok=isinstance(value, int) and value >= 0)

    @property
    def size_bucket(self) -> tuple[int, int]:
        """(ceil log2 of the total, ceil log2 of the median length): tuned configurations are kept per bucket."""
        return (max(self.total, 1) - 1).bit_length(), (max(self.median, 1) - 1).bit_length()


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchConfig:
    """One point of a kernel family's tuning space.

    Attributes:
        kernel: the kernel family, a key of `sonew_kernels.spec.SPECS`; "" where nothing is tuned.
        meta: sorted (name, value) pairs.
    """

    kernel: str
    meta: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, kernel: str, meta: Mapping[str, int]) -> LaunchConfig:
        """Configuration from a mapping."""
        return cls(kernel=kernel, meta=tuple(sorted(meta.items())))

    def as_dict(self) -> dict[str, int]:
        """The pairs as a mapping."""
        return dict(self.meta)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a group is stepped, and why so.

    Attributes:
        problem: what was asked.
        backend: the backend's name in `sonew.registry`.
        config: its launch configuration.
        provenance: one line saying where the configuration comes from and what was passed over.
    """

    problem: Problem
    backend: str
    config: LaunchConfig
    provenance: str
