"""A model of the optimizer, tensor by tensor: what is drawn, what each tensor holds, and what `sonew.reference` makes of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from hypothesis import strategies as st

from sonew import reference
from sonew.config import GRAFTS, Hyper, chain_length
from tests.sonew.torch_bits import as_bits
from tests.strategies import seeds
from tests.tolerances import TOLERANCES, assert_close

SENTINEL: Final = -7.0
BANDS: Final = (1, 0, 2, 4)
BETAS: Final = ((0.9, 0.99), (0.0, 0.9), (0.5, 0.999), (0.9, 0.0))
CHAINS: Final = ("tensor", "row", 1, 3, 5)
DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16)
DAMPING: Final = 0.05  # eps, at least, over mean squared gradient and rows of stats: a first step keeps the digits of its row in float32
GROWING: Final = 2.0  # eps_rel, at least, where couplings are missing from the stats: any such window is then well conditioned
NAMES: Final = ("lr", "eps", "weight_decay", "band", "eps_rel", "gamma", "graft", "chain", "decoupled_weight_decay", "maximize")
KINDS: Final = ("normal", "none", "zero", "kept", "sparse", "constant", "tiny")
POISONS: Final = (float("nan"), float("inf"), -float("inf"))


@dataclass(frozen=True)
class Spec:
    """A tensor to be made; `form` is how it lies in memory."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    form: str
    seed: int

    def lay(self, values: torch.Tensor) -> torch.Tensor:
        """The values in this type and form: axes reversed, or a sentinel behind every element."""
        values = values.to(self.dtype)
        axes = tuple(reversed(range(values.ndim)))
        if self.form == "reversed":
            return values.permute(axes).contiguous().permute(axes)
        if self.form == "gapped":
            return torch.stack((values, torch.full_like(values, SENTINEL)), -1)[..., 0]
        return values

    def param(self) -> torch.nn.Parameter:
        """The parameter."""
        return torch.nn.Parameter(self.lay(torch.from_numpy(np.asarray(np.random.default_rng(self.seed).standard_normal(self.shape)))))

    def grad(self, kind: str, scale: float, seed: int) -> torch.Tensor:
        """A gradient whose numbers are about `scale`, of a kind of `KINDS`; in half of the cases it lies like the parameter."""
        rng = np.random.default_rng((self.seed, seed))
        values = np.clip(rng.standard_normal(self.shape), -2.5, 2.5)
        if kind == "constant":
            values = np.full(self.shape, rng.uniform(-1, 1))
        values = values * (rng.random(self.shape) < 0.3 if kind == "sparse" else {"zero": 0.0, "tiny": 1e-6}.get(kind, 1.0))
        grad = torch.from_numpy(np.asarray(values * scale))
        return self.lay(grad) if rng.random() < 0.5 else grad.to(self.dtype)


@dataclass(frozen=True)
class Group:
    """A parameter group: tensors, settings, and the size of its gradients."""

    specs: tuple[Spec, ...]
    hyper: Hyper
    scale: float
    skip_nonfinite: bool

    def options(self) -> dict[str, Any]:
        """The settings as the optimizer takes them."""
        named = {name: getattr(self.hyper, name) for name in NAMES}
        return named | {"betas": (self.hyper.beta1, self.hyper.beta2), "skip_nonfinite": self.skip_nonfinite}

    def with_settings(self, **changes: Any) -> Group:
        """Other settings."""
        return replace(self, hyper=replace(self.hyper, **changes))

    def with_band(self, band: int) -> Group:
        """Another band; where rows will be missing, damped such that no window becomes singular."""
        grown = max(GROWING, self.hyper.eps_rel) if band > self.hyper.band else self.hyper.eps_rel
        return self.with_settings(band=band, eps_rel=grown)

    @property
    def unit(self) -> float:
        """The lr that makes a step of about 1 per element."""
        return {"none": self.scale, "sgd": 1 / self.scale}.get(self.hyper.graft, 1.0)


@st.composite
def specs(draw: st.DrawFn, band: int) -> Spec:
    """Tensors of every awkward shape, type and form."""
    shapes = ((7,), (), (0,), (1,), (band,), (band + 1,), (3, 4), (2, 1, 3), (4, 0), (2, 2, 3, 2), (37,))
    return Spec(
        draw(st.sampled_from(shapes)),
        draw(st.sampled_from(DTYPES)),
        draw(st.sampled_from(("plain", "reversed", "gapped"))),
        draw(seeds()),
    )


@st.composite
def groups(draw: st.DrawFn) -> Group:
    """Groups of one to three tensors."""
    scale, coupled = draw(st.sampled_from((1.0, 1e-3, 30.0))), draw(st.booleans())
    band, (beta1, beta2) = draw(st.sampled_from(BANDS)), draw(st.sampled_from(BETAS))
    hyper = Hyper(
        beta1=beta1,
        beta2=beta2,
        eps=draw(st.sampled_from((DAMPING * (band + 1), 1.0))) * scale**2,
        weight_decay=draw(st.sampled_from((0.0, 0.1))) * (scale if coupled else 1.0),
        band=band,
        eps_rel=draw(st.sampled_from((0.0, 0.1, GROWING))),
        gamma=draw(st.sampled_from((0.0, 1e-3, 2.0))),  # never and always: nothing falls back by a hair
        graft=draw(st.sampled_from(GRAFTS)),
        chain=draw(st.sampled_from(CHAINS)),
        decoupled_weight_decay=not coupled,
        maximize=draw(st.booleans()),
    )
    members = tuple(draw(st.lists(specs(band), min_size=1, max_size=3)))
    group = Group(members, hyper, scale, draw(st.booleans()))
    return group.with_settings(lr=draw(st.sampled_from((0.1, 1.0, 0.0))) * group.unit)


@dataclass(frozen=True)
class Cell:
    """What one tensor holds, in copies: its parameter in its own type, and its state, None before there is any."""

    param: torch.Tensor
    momentum: torch.Tensor | None = None
    stats: torch.Tensor | None = None
    count: int = 0

    @classmethod
    def read(cls, param: torch.Tensor, state: Mapping[str, torch.Tensor] | None = None) -> Cell:
        """Copies of what is there now."""
        own = param.detach().clone(memory_format=torch.contiguous_format)
        return cls(own) if state is None else cls(own, state["momentum"].clone(), state["stats"].clone(), int(state["count"]))

    def begun(self, band: int) -> Cell:
        """With a state, of zeros where there was none."""
        if self.momentum is not None:
            return self
        zeros = torch.zeros((band + 2, *self.param.shape))
        return replace(self, momentum=zeros[0], stats=zeros[1:])

    def fitted(self, band: int) -> Cell:
        """With statistics of this band."""
        if self.stats is None:
            return self
        rows = torch.zeros((band + 1, *self.param.shape))
        kept = min(band + 1, self.stats.shape[0])
        rows[:kept] = self.stats[:kept]
        return replace(self, stats=rows)

    def assert_held(self, param: torch.Tensor, state: Mapping[str, torch.Tensor]) -> None:
        """Parameter and state are these to the bit, in type and shape."""
        assert (param.dtype, param.shape) == (self.param.dtype, self.param.shape)
        assert torch.equal(as_bits(param), as_bits(self.param)), f"parameter {param} is not {self.param}"
        if self.momentum is None or self.stats is None:
            assert not state, f"a tensor that was never stepped has state {sorted(state)}"
            return
        assert sorted(state) == ["count", "momentum", "stats"]
        momentum, stats, count = state["momentum"], state["stats"], state["count"]
        assert (momentum.dtype, stats.dtype, count.dtype) == (torch.float32, torch.float32, torch.int32)
        assert (momentum.shape, stats.shape, count.shape) == (param.shape, self.stats.shape, ())
        assert int(count) == self.count, f"count {int(count)}, expected {self.count}"
        assert torch.equal(as_bits(momentum), as_bits(self.momentum)), f"momentum {momentum} is not {self.momentum}"
        assert torch.equal(as_bits(stats), as_bits(self.stats)), f"stats {stats} are not {self.stats}"

    @np.errstate(all="ignore")
    def assert_step(self, grad: np.ndarray, hyper: Hyper, param: torch.Tensor, state: Mapping[str, torch.Tensor]) -> None:
        """Parameter and state are what the reference's step from here gives. `grad` float32, unscaled.

        Errors are relative to the sizes of what was added up, so that sums which cancel ask for no digit that was never there.
        """
        assert self.momentum is not None
        assert self.stats is not None
        old, momentum, stats = (x.to(torch.float32).numpy() for x in (self.param, self.momentum, self.stats))
        new, *averages = map(np.asarray, reference.step(np, old, grad, momentum, stats, np.asarray(self.count + 1), hyper))
        joined = reference.effective_gradient(grad, old, hyper).reshape(-1)
        links = reference.chain_links(np, joined, hyper.band, chain_length(hyper.chain, old.shape))
        held = np.abs(momentum.reshape(-1)), np.abs(stats.reshape(hyper.band + 1, -1))
        sizes = reference.accumulate(np, *held, np.abs(joined), links, hyper)
        assert int(state["count"]) == self.count + 1
        for name, want, size in zip(("momentum", "stats"), averages, sizes, strict=True):
            _assert_near(state[name].numpy(), want, size.reshape(want.shape), "float32 averages", name)
        if hyper.lr == 0.0:
            assert torch.equal(as_bits(param), as_bits(self.param)), f"lr = 0 made {param} of {self.param}"
            return
        got, change = param.detach().to(torch.float32).numpy(), np.abs(old) + np.abs(new - old)
        if param.dtype is torch.float32:
            _assert_near(got, new, change, "float32", "parameter")
            return
        # Stored in fewer bits, it is what a number near the reference's would be stored as.
        slack = TOLERANCES["float32"].peak * change
        low, high = (torch.from_numpy(np.asarray(x)).to(param.dtype).to(torch.float32).numpy() for x in (new - slack, new + slack))
        within = (low <= got) & (got <= high) | (np.isnan(got) & np.isnan(new))
        assert_close(np.where(within, 0.0, got), np.where(within, 0.0, new), "exact", context="parameter")


def _assert_near(got: np.ndarray, want: np.ndarray, size: np.ndarray, row: str, context: str) -> None:
    assert got.shape == want.shape, f"{context}: shape {got.shape}, expected {want.shape}"
    shift = np.copysign(np.where(np.isfinite(size), size, 0.0), want, dtype=np.float64)
    assert_close(got + shift, want + shift, row, context=context)
