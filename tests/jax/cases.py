"""Problems that JAX, torch and the interpreted kernels step alike; read in processes of each, so it loads none of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sonew import reference
from sonew.config import Chain, GraftName, Hyper, chain_length
from tests.strategies import history

SHAPES: Final = ((12, 13), (0, 3), ())
EPS: Final = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Settings of one optimizer, and the torch backend that they are compared with."""

    band: int
    chain: Chain
    graft: GraftName
    backend: str
    state_dtype: str = "float32"

    def __str__(self) -> str:
        return f"band{self.band}-{self.chain}-{self.graft}-{self.backend}-{self.state_dtype}"

    @property
    def settings(self) -> dict[str, Any]:
        """What both surfaces call alike."""
        names = ("band", "chain", "graft", "state_dtype")
        return {"eps": EPS, "eps_rel": 0.01, "gamma": 0.05, "seed": 7, **{name: getattr(self, name) for name in names}}

    def gradients(self) -> list[np.ndarray]:
        """Per tensor (steps, *shape). The scalar's are positive: averages that cancel have digits of their own only beside larger ones."""
        columns = [history(self.band + i, shape, band=self.band) for i, shape in enumerate(SHAPES)]
        return [column if shape else np.abs(column) for column, shape in zip(columns, SHAPES, strict=True)]


CASES: Final = (
    Case(band=0, chain="tensor", graft="adam", backend="cpu"),
    Case(band=1, chain="row", graft="adam", backend="cpu"),
    Case(band=1, chain="tensor", graft="none", backend="reference"),
    Case(band=2, chain=7, graft="rmsprop", backend="cpu"),
    Case(band=3, chain="tensor", graft="sgd", backend="cpu"),
    Case(band=4, chain="row", graft="adam_uncorrected", backend="reference"),
    Case(band=5, chain=5, graft="none", backend="cpu"),
    Case(band=6, chain="tensor", graft="adam", backend="cpu"),
    Case(band=7, chain="row", graft="sgd", backend="reference"),
    Case(band=8, chain=100, graft="adam_uncorrected", backend="cpu"),
    Case(band=1, chain="tensor", graft="adam", backend="cpu", state_dtype="bfloat16"),
    Case(band=3, chain=9, graft="rmsprop", backend="reference", state_dtype="bfloat16"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A flat tensor before a step: float32 grad (n,), momentum (n,), stats (band + 1, n)."""

    grad: np.ndarray
    momentum: np.ndarray
    stats: np.ndarray

    @classmethod
    def of(cls, seed: int, shape: tuple[int, ...], hyper: Hyper) -> Past:
        """After a history, whose averages are formed in float64."""
        grads = history(seed, shape, band=hyper.band).reshape(-1, int(np.prod(shape)))
        *before, last = grads.astype(np.float64)
        momentum, stats = np.zeros_like(last), np.zeros((hyper.band + 1, last.size))
        links = reference.chain_links(np, last, hyper.band, chain_length(hyper.chain, shape))
        for grad in before:
            momentum, stats = reference.accumulate(np, momentum, stats, grad, links, hyper)
        return cls(grad=last.astype(np.float32), momentum=momentum.astype(np.float32), stats=stats.astype(np.float32))
