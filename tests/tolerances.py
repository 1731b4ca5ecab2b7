"""How close two results must be: one table, used by every suite. A row is chosen, never adjusted in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Bounds on an error e = actual - expected over all finite elements.

    Attributes:
        rms: largest |e|_rms / |expected|_rms.
        peak: largest |e_i| / max(|expected_i|, |expected|_rms).
        cosine: smallest cosine between actual and expected; None where the two bounds above say it all.
        why: what sets the numbers.
    """

    rms: float
    peak: float
    cosine: float | None = None
    why: str


TOLERANCES: Final[Mapping[str, Tolerance]] = {
    "exact": Tolerance(rms=0.0, peak=0.0, why="the same operations in the same order, or values every format holds"),
    "float64": Tolerance(rms=1e-12, peak=1e-11, why="rounding 1e-16 times the condition of a window of a history; largest seen 1e-14"),
    "float64 ill": Tolerance(rms=1e-7, peak=1e-6, why="low-rank windows damped by eps >= 1e-3: condition up to 1e4, squared"),
    "float32": Tolerance(rms=2e-5, peak=1e-4, why="rounding 6e-8 times the condition of a window of a history; largest seen 2e-6"),
    "float32 averages": Tolerance(rms=1e-6, peak=5e-6, why="momentum and stats: a few roundings of 6e-8 per step, no division"),
    "float32 ill": Tolerance(
        rms=0.2,
        peak=np.inf,
        cosine=0.99,
        why="low-rank windows of ordinary numbers damped by eps >= 1e-4: single elements lose most digits, the direction keeps two; "
        "below that damping 1/pivot has no correct digit and no comparison is possible",
    ),
    "bfloat16 store": Tolerance(rms=4e-3, peak=8e-3, why="a parameter kept in 8 bits: one unit in the last place is 2^-8"),
    "float16 store": Tolerance(rms=5e-4, peak=1e-3, why="a parameter kept in 11 bits: one unit in the last place is 2^-11"),
    "bfloat16 averages": Tolerance(
        rms=2e-2,
        peak=6e-2,
        why="stored in 8 bits at each of a dozen steps: every store moves a value by up to 2^-7, and the moves add up like a random walk",
    ),
    "bfloat16 stochastic": Tolerance(
        rms=2e-4,
        peak=8e-3,
        why="equal noise: a last digit of float32 that differs moves a stored value by one unit in the last place (2^-8) once in 2^15; "
        "other noise gives an rms of 2e-3",
    ),
    "norms": Tolerance(rms=2e-6, peak=4e-6, why="sums of squares in another order, float64 partials, one float32 rounding at the end"),
}


def as_float64(array: Any) -> np.ndarray:
    """A float64 numpy copy of a numpy, torch or jax array."""
    if hasattr(array, "detach"):
        array = array.detach().cpu().double().numpy()
    return np.array(array, dtype=np.float64)


def _rms(x: np.ndarray) -> float:
    peak = float(np.max(np.abs(x), initial=0.0))
    return peak * float(np.sqrt(np.mean((x / peak) ** 2))) if peak > 0 else 0.0


def errors(actual: Any, expected: Any) -> tuple[float, float, float]:
    """(rms error, peak error, cosine) as defined in `Tolerance`, over the elements where both are finite."""
    got, want = as_float64(actual).reshape(-1), as_float64(expected).reshape(-1)
    finite = np.isfinite(got) & np.isfinite(want)
    got, want = got[finite], want[finite]
    error, size = np.abs(got - want), _rms(want)
    scale = np.maximum(np.abs(want), size)
    relative = np.divide(error, scale, out=np.where(error > 0, np.inf, 0.0), where=scale > 0)
    peak = float(np.max(relative, initial=0.0))
    rms = _rms(error) / size if size > 0 else peak
    product = _rms(got) * size * max(1, got.size)
    cosine = float(got @ want / product) if product > 0 else float(not error.any())
    return rms, peak, cosine


def assert_close(actual: Any, expected: Any, row: str, *, context: str = "") -> None:
    """Fail unless `actual` has the shape of `expected`, the same NaN and infinities, and errors within TOLERANCES[row]."""
    tolerance = TOLERANCES[row]
    got, want = as_float64(actual), as_float64(expected)
    assert got.shape == want.shape, f"{context}: shape {got.shape}, expected {want.shape}"
    odd = ~np.isfinite(got) | ~np.isfinite(want)
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    if np.any(odd & ~same):
        at = tuple(int(i) for i in np.argwhere(odd & ~same)[0])
        msg = f"{context}: {np.count_nonzero(odd & ~same)} non-finite elements differ, the first at {at}: {got[at]}, expected {want[at]}"
        raise AssertionError(msg)
    rms, peak, cosine = errors(got, want)
    cosine_ok = tolerance.cosine is None or cosine >= tolerance.cosine
    if not (rms <= tolerance.rms and peak <= tolerance.peak and cosine_ok):
        worst = int(np.argmax(np.where(odd, -1.0, np.abs(got - want)))) if got.size else 0
        msg = (
            f"{context}: not close by row {row!r} ({tolerance.why}): rms error {rms:.3g} (allowed {tolerance.rms:.3g}), "
            f"peak error {peak:.3g} (allowed {tolerance.peak:.3g}), cosine {cosine:.6f} (at least {tolerance.cosine}); "
            f"largest difference at flat index {worst} of {got.size}: {got.reshape(-1)[worst]!r}, expected {want.reshape(-1)[worst]!r}"
        )
        raise AssertionError(msg)
