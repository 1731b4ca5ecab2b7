"""The float64 dense oracle: the method on whole matrices, brute force per column. It shares no code with `sonew.reference`.

Everything here is a flat tensor of n elements and dense (n, n) matrices, so keep n below a few hundred. Two things are
offered: the *defining property* of the preconditioner X (its inverse equals A on the band, X is zero off the band and
positive definite), and a *transcription* of the whole step, which also covers columns that fall back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sonew.config import Hyper


def same_band(n: int, band: int, chain: int) -> np.ndarray:
    """Mask (n, n): |i - j| <= band and both in one chain of `chain` elements."""
    i, j = np.indices((n, n))
    mask: np.ndarray = (np.abs(i - j) <= band) & (i // chain == j // chain)
    return mask


def chain_elements(hyper: Hyper, shape: tuple[int, ...]) -> int:
    """Elements per chain."""
    if hyper.chain == "tensor":
        return max(int(np.prod(shape)), 1)
    if hyper.chain == "row":
        return max(shape[-1], 1) if shape else 1
    return int(hyper.chain)


def damp(matrix: np.ndarray, hyper: Hyper) -> np.ndarray:
    """A of a corrected H: the diagonal times 1 + eps_rel, plus eps."""
    damped = matrix.copy()
    np.fill_diagonal(damped, matrix.diagonal() * (1 + hyper.eps_rel) + hyper.eps)
    return damped


def _schur(a: np.ndarray, i: int, beyond: list[int]) -> float:
    """What is left of A_ii once the elements beyond are eliminated."""
    if not beyond:
        return float(a[i, i])
    return float(a[i, i] - a[i, beyond] @ np.linalg.solve(a[np.ix_(beyond, beyond)], a[beyond, i]))


def column_falls_back(a: np.ndarray, j: int, window: list[int], gamma: float) -> bool:
    """Whether any pivot of column j, eliminated from the farthest neighbour to j itself, is <= gamma A_ii or NaN."""
    members = [j, *window]
    return any(not _schur(a, i, members[at + 1 :]) > gamma * a[i, i] for at, i in reversed(list(enumerate(members))))


def preconditioner(a: np.ndarray, mask: np.ndarray, gamma: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(X, fallen): X = L D L^T (n, n) column by column, and a mask (n,) of the columns that fell back.

    Args:
        a: damped statistics (n, n), read on the band only.
        mask: the band.
        gamma: pivot threshold.
    """
    n = len(a)
    unit_lower, d, fallen = np.eye(n), np.zeros(n), np.zeros(n, dtype=bool)
    for j in range(n):
        window = [i for i in range(j + 1, n) if mask[i, j]]
        fallen[j] = column_falls_back(a, j, window, gamma)
        inverse = a[j, j] if fallen[j] else _schur(a, j, window)
        if window and not fallen[j]:
            unit_lower[window, j] = -np.linalg.solve(a[np.ix_(window, window)], a[window, j])
        d[j] = 0.0 if a[j, j] <= 0 else 1 / inverse
    return unit_lower @ np.diag(d) @ unit_lower.T, fallen


def property_errors(x: np.ndarray, a: np.ndarray, mask: np.ndarray) -> tuple[float, float, float]:
    """How far X is from its defining property.

    Returns:
        (largest |X^-1 - A| on the band over the largest |A|, largest |X| off the band, least eigenvalue over the largest).
    """
    difference = float(np.max(np.abs(np.linalg.inv(x) - a)[mask])) / float(np.max(np.abs(a)))
    eigenvalues = np.linalg.eigvalsh(x)
    return difference, float(np.max(np.abs(x[~mask]), initial=0.0)), float(eigenvalues[0] / eigenvalues[-1])


@dataclass(frozen=True, slots=True)
class DenseState:
    """Momentum (n,), the running mean of g g^T on the band (n, n), steps taken."""

    momentum: np.ndarray
    matrix: np.ndarray
    count: int

    @classmethod
    def zeros(cls, n: int) -> DenseState:
        """Before the first step."""
        return cls(np.zeros(n), np.zeros((n, n)), 0)


def _target(grad: np.ndarray, corrected: np.ndarray, variance: np.ndarray, uncorrected: np.ndarray, graft: str) -> np.ndarray:
    """The vector whose length the direction takes."""
    vectors = {
        "adam": corrected / (variance**0.5 + 1e-8),
        "adam_uncorrected": corrected / (uncorrected**0.5 + 1e-8),
        "rmsprop": grad / (variance**0.5 + 1e-8),
        "sgd": grad,
    }
    return np.asarray(vectors[graft])


@dataclass(frozen=True, slots=True)
class DenseStep:
    """What one step did: the new parameter (*S), the new state, the grafted direction (n,), and the columns that fell back (n,)."""

    param: np.ndarray
    state: DenseState
    direction: np.ndarray
    fallen: np.ndarray


def advance(grad: np.ndarray, state: DenseState, hyper: Hyper) -> DenseState:
    """The state after a gradient of shape S."""
    g = grad.reshape(-1)
    mask = same_band(g.size, hyper.band, chain_elements(hyper, grad.shape))
    momentum = hyper.beta1 * state.momentum + (1 - hyper.beta1) * g
    matrix = np.where(mask, hyper.beta2 * state.matrix + (1 - hyper.beta2) * np.outer(g, g), 0.0)
    return DenseState(momentum, matrix, state.count + 1)


def step(param: np.ndarray, grad: np.ndarray, state: DenseState, hyper: Hyper) -> DenseStep:
    """One step of one tensor of any shape S."""
    new = advance(grad, state, hyper)
    corrected_momentum, corrected = new.momentum / (1 - hyper.beta1**new.count), new.matrix / (1 - hyper.beta2**new.count)
    mask = same_band(grad.size, hyper.band, chain_elements(hyper, grad.shape))
    x, fallen = preconditioner(damp(corrected, hyper), mask, hyper.gamma)
    u = x @ corrected_momentum
    size = np.linalg.norm(u)
    if hyper.graft != "none" and size > 0:
        target = _target(grad.reshape(-1), corrected_momentum, corrected.diagonal(), new.matrix.diagonal(), hyper.graft)
        u *= np.linalg.norm(target) / size
    new_param = param - hyper.lr * (u.reshape(param.shape) + hyper.weight_decay * param)
    return DenseStep(new_param, new, u, fallen)


def band_rows(matrix: np.ndarray, band: int) -> np.ndarray:
    """Rows (band + 1, n) of a dense matrix as the state keeps them: row k at i is the entry (i, i + k), 0 past the end."""
    n = len(matrix)
    return np.stack([np.pad(matrix.diagonal(k) if k < n else np.zeros(0), (0, min(k, n))) for k in range(band + 1)])
