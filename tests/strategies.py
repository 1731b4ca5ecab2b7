"""Test data: gradients of every kind, histories, settings and whole problems, as functions of a seed and as Hypothesis strategies."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from hypothesis import strategies as st

from sonew.config import GRAFTS, Hyper

ROUGH_KINDS: Final = ("normal", "zero", "sparse", "denormal", "large", "mixed", "constant")


def gradient(seed: int, shape: tuple[int, ...], kind: str = "normal") -> np.ndarray:
    """A float32 gradient.

    Kinds: "normal"; "zero"; "sparse" (nine tenths zero); "denormal" (below 1e-38); "large" (around 1e18: the squares
    still fit in float32); "mixed" (magnitudes from 1e-12 to 1e3 side by side); "constant" (every window has rank one).
    """
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal(shape)
    scale: Any = {"zero": 0.0, "denormal": 1e-41, "large": 1e18}.get(kind, 1.0)
    if kind == "sparse":
        scale = rng.random(shape) < 0.1
    if kind == "mixed":
        scale = 10.0 ** rng.integers(-12, 4, shape)
    values = np.full(shape, normal.reshape(-1)[:1].sum()) if kind == "constant" else normal
    grad: np.ndarray = (np.clip(values, -3, 3) * scale).astype(np.float32)
    return grad


def history(seed: int, shape: tuple[int, ...], *, band: int, steps: int | None = None) -> np.ndarray:
    """Gradients (steps, *shape) that leave well-conditioned windows: each is neighbour-correlated noise of its own.

    A window of band + 1 needs at least that many independent gradients; the default takes 3 (band + 1) + 4.
    """
    count = 3 * (band + 1) + 4 if steps is None else steps
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, math.prod(shape)))
    smooth = noise + 0.4 * np.roll(noise, 1, axis=1)
    size = 10.0 ** rng.uniform(-0.5, 0.5, smooth.shape[1])
    grads: np.ndarray = (smooth * size).reshape(count, *shape).astype(np.float32)
    return grads


def awkward_sizes(band: int, *units: int) -> list[int]:
    """Sizes where things break: 0, 1, band, band + 1, and around each unit (a block, tile or segment), and an odd large one."""
    around = [size for unit in units for size in (unit - 1, unit, unit + 1)]
    largest = max((2 * band + 3, *(2 * unit + 37 for unit in units)))
    return sorted({0, 1, band, band + 1, *around, largest | 1})


def seeds() -> st.SearchStrategy[int]:
    """Seeds of the data."""
    return st.integers(0, 2**31 - 1)


def bands(largest: int = 8) -> st.SearchStrategy[int]:
    """Bands, small ones first when shrinking."""
    return st.integers(0, largest)


def sizes(band: int, largest: int = 40) -> st.SearchStrategy[int]:
    """Tensor sizes with 0, 1, band and band + 1 drawn often."""
    return st.sampled_from(sorted({0, 1, band, band + 1})) | st.integers(0, largest)


def chains(largest: int = 12) -> st.SearchStrategy[Any]:
    """Chain modes."""
    return st.sampled_from(("tensor", "row")) | st.integers(1, largest)


@st.composite
def shapes(draw: st.DrawFn, band: int, largest: int = 40) -> tuple[int, ...]:
    """Shapes of 0 to 3 axes with at most `largest` elements."""
    size = draw(sizes(band, largest))
    kind = draw(st.sampled_from(("flat", "scalar", "matrix", "cube")))
    if kind == "scalar":
        return ()
    if kind == "flat" or size == 0:
        return (size,)
    rows = draw(st.integers(1, size))
    if kind == "matrix":
        return (rows, size // rows)
    inner = draw(st.integers(1, size // rows))
    return (rows, inner, size // rows // inner)


@st.composite
def hypers(draw: st.DrawFn, *, largest_band: int = 8, eps: tuple[float, ...] = (1e-8, 1e-3)) -> Hyper:
    """Settings of every kind, save a beta2 near 0, whose averages have rank one."""
    return Hyper(
        lr=draw(st.sampled_from((1e-3, 0.1, 1.0))),
        beta1=draw(st.sampled_from((0.0, 0.5, 0.9))),
        beta2=draw(st.sampled_from((0.9, 0.99, 0.999))),
        eps=draw(st.sampled_from(eps)),
        weight_decay=draw(st.sampled_from((0.0, 0.1))),
        band=draw(bands(largest_band)),
        eps_rel=draw(st.sampled_from((0.0, 1e-4, 0.1))),
        gamma=draw(st.sampled_from((0.0, 1e-3, 0.3))),
        graft=draw(st.sampled_from(GRAFTS)),
        chain=draw(chains()),
    )


@dataclass(frozen=True, slots=True)
class Case:
    """A tensor and its gradients: param (*S) float64, grads (steps, *S) float64; `origin` says how they were made."""

    hyper: Hyper
    param: np.ndarray = field(repr=False)
    grads: np.ndarray = field(repr=False)
    origin: str = ""


@st.composite
def cases(draw: st.DrawFn, *, largest_band: int = 8, largest: int = 40, kinds: tuple[str, ...] = ("history",)) -> Case:
    """Whole problems; "history" leaves well-conditioned windows, other kinds are those of `gradient`, two steps of them."""
    hyper = draw(hypers(largest_band=largest_band))
    shape = draw(shapes(hyper.band, largest))
    seed, kind = draw(seeds()), draw(st.sampled_from(kinds))
    if kind == "history":
        grads = history(seed, shape, band=hyper.band)
    else:
        grads = np.stack([gradient(seed + step, shape, kind) for step in range(2)])
    param = np.random.default_rng(seed).standard_normal(shape)
    return Case(hyper, param, grads.astype(np.float64), f"seed {seed}, shape {shape}, {kind}")
