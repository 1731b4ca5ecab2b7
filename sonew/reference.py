"""The mathematics of SONew, written once and plainly: accumulate, factor, apply, graft, step.

Pure functions over an array namespace `xp`: numpy, torch and jax.numpy all serve unchanged. Every kernel is held to this
file and this file to the dense float64 oracle of `tests/oracle.py`. Source: SONew, NeurIPS 2023, arXiv 2311.10085;
derivation in `kernels/README.md`.

Arrays are flat, one element of the tensor per position in logical row-major order (n positions), band b:
momentum (n,), stats (b + 1, n) with stats[k][i] the running mean of g[i] g[i+k], lower a tuple of b arrays (n,) with
lower[q - 1][j] = L[j + q, j], diagonal (n,) the diagonal D. `links` is a tuple of b + 1 masks (n,): links[k][i] says
that i + k lies in the chain of i. Arithmetic is in the arrays' own type; the caller casts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from sonew.config import Hyper, chain_length

Array = Any  # an array of the namespace in use; the three namespaces share no static type

GRAFT_EPS: Final = 1e-8


@dataclass(frozen=True, slots=True)
class DecayNumbers:
    """What the decays contribute, formed in float64 on the host."""

    one_minus_beta1: float
    log_beta1: float
    one_minus_beta2: float
    log_beta2: float


def decay_numbers(hyper: Hyper, xp: ModuleType | None = None) -> DecayNumbers:
    """1 - beta and log beta of both decays; log 0 is -inf, which makes the correction exactly 1.

    Args:
        hyper: the decays. xp: the namespace of decays that are arrays (in a program that is traced, a number may be one).
    """

    def log(beta: Any) -> Any:  # noqa: ANN401  # a number or an array
        if xp is not None and hasattr(beta, "dtype"):
            return xp.log(beta)
        return math.log(beta) if beta > 0 else -math.inf

    return DecayNumbers(1.0 - hyper.beta1, log(hyper.beta1), 1.0 - hyper.beta2, log(hyper.beta2))


def correction(xp: ModuleType, count: Array, log_beta: float) -> Array:
    """1 - beta^count, free of cancellation for beta near 1: -expm1(count log beta)."""
    return -xp.expm1(count * log_beta)


def ahead(xp: ModuleType, x: Array, k: int) -> Array:
    """x[i + k] at position i, 0 past the end."""
    return xp.concatenate((x[k:], xp.zeros_like(x[:k])))


def behind(xp: ModuleType, x: Array, k: int) -> Array:
    """x[i - k] at position i, 0 before the start."""
    return xp.concatenate((xp.zeros_like(x[:k]), x[: max(x.shape[0] - k, 0)]))


def chain_links(xp: ModuleType, like: Array, band: int, chain: int, *, start: int = 0, total: int | None = None) -> tuple[Array, ...]:
    """Masks, one per offset 0..band, saying whether position i + k exists and lies in the chain of i.

    Args:
        xp: array namespace.
        like: an array (n,) of the namespace and device in use.
        band: the largest offset.
        chain: elements per chain.
        start: position of the first element in its tensor, where the array is a part of one.
        total: elements of the whole tensor, None: n.
    """
    n = like.shape[0]
    index = xp.cumsum(xp.ones_like(like, dtype=xp.int32), 0) - 1
    left = (n if total is None else min(total - start, n + band)) - index  # positions up to the tensor's end, this one included
    in_chain = chain - (start % chain + index) % chain
    return links_at(left, in_chain, band)


def links_at(left: Array, in_chain: Array, band: int) -> tuple[Array, ...]:
    """`chain_links` by how many elements the tensor and the chain still have at each position (n,), this one included."""
    return tuple((left > k) & (in_chain > k) for k in range(band + 1))


def effective_gradient(grad: Array, param: Array, hyper: Hyper) -> Array:
    """What is accumulated: the gradient, negated to maximize, and with coupled decay weight_decay p added; shapes S."""
    if hyper.maximize:
        grad = -grad
    return grad if hyper.decoupled_weight_decay or hyper.weight_decay == 0 else grad + hyper.weight_decay * param


def accumulate(xp: ModuleType, momentum: Array, stats: Array, grad: Array, links: tuple[Array, ...], hyper: Hyper) -> tuple[Array, Array]:
    """Running means: m <- beta1 m + (1 - beta1) g and H_k[i] <- beta2 H_k[i] + (1 - beta2) g[i] g[i+k]; unlinked entries are 0."""
    numbers = decay_numbers(hyper, xp)
    new_momentum = hyper.beta1 * momentum + numbers.one_minus_beta1 * grad
    rows = [
        xp.where(link, hyper.beta2 * stats[k] + numbers.one_minus_beta2 * (grad * ahead(xp, grad, k)), 0.0) for k, link in enumerate(links)
    ]
    return new_momentum, xp.stack(rows)


def _windows(xp: ModuleType, stats: Array, links: tuple[Array, ...], hyper: Hyper) -> tuple[Array, list[Array], list[list[Array]]]:
    """(damped diagonal A_jj, A_qq of the neighbours q = 0..b, the window's lower triangle [q][r]) of every column."""
    band = len(links) - 1
    damped = stats[0] * (1.0 + hyper.eps_rel) + hyper.eps
    diagonal = [xp.where(links[q], ahead(xp, damped, q), 1.0) for q in range(band + 1)]
    # window[q][r], r <= q: the entry that couples j + q and j + r; a neighbour past the chain's end is a decoupled 1
    window = [[xp.where(links[q], ahead(xp, stats[q - r], r), 0.0) for r in range(q)] + [diagonal[q]] for q in range(band + 1)]
    return damped, diagonal, window


def _eliminate(
    xp: ModuleType, window: list[list[Array]], diagonal: list[Array], links: tuple[Array, ...], gamma: float
) -> tuple[Array, dict[tuple[int, int], Array], Array]:
    """(whether each column falls back, its multipliers, its last pivot); the window is used up."""
    failed = xp.zeros_like(links[0])
    weights: dict[tuple[int, int], Array] = {}
    for q in range(len(links) - 1, 0, -1):
        bad = links[q] & ~(window[q][q] > gamma * diagonal[q])
        failed = failed | bad
        pivot = xp.where(bad, 1.0, window[q][q])  # the column falls back, so any finite pivot will do
        for s in range(q):
            weights[q, s] = window[q][s] / pivot
            for r in range(s + 1):
                window[s][r] = window[s][r] - weights[q, s] * window[q][r]
    return failed | ~(window[0][0] > gamma * diagonal[0]), weights, window[0][0]


def fallen_columns(xp: ModuleType, stats: Array, links: tuple[Array, ...], hyper: Hyper) -> Array:
    """Mask (n,) of the columns that fall back; arguments as in `factor`."""
    _, diagonal, window = _windows(xp, stats, links, hyper)
    return _eliminate(xp, window, diagonal, links, hyper.gamma)[0]


def factor(xp: ModuleType, stats: Array, links: tuple[Array, ...], hyper: Hyper) -> tuple[tuple[Array, ...], Array]:
    """L and D of X = L D L^T, the LogDet inverse of the corrected, damped statistics A on their band.

    Column j sees the window {j..j+b} inside its chain. Unpivoted elimination from the farthest neighbour to the nearest,
    j last: psi solves A[I, I] psi = A[I, j], L[I, j] = -psi, 1 / D_j is the last pivot. If any pivot p_i is at or below
    gamma A_ii or NaN, the column falls back to psi = 0, 1 / D_j = A_jj; A_jj <= 0 gives D_j = 0.

    Args:
        xp: array namespace.
        stats: bias-corrected statistics (b + 1, n).
        links: chain masks.
        hyper: eps, eps_rel and gamma are used.

    Returns:
        (lower, diagonal), shapes in the module docstring.
    """
    damped, diagonal, window = _windows(xp, stats, links, hyper)
    failed, weights, pivot = _eliminate(xp, window, diagonal, links, hyper.gamma)
    psi: list[Array] = []
    for q in range(1, len(links)):
        value = weights[q, 0]
        for r in range(1, q):
            value = value - weights[q, r] * psi[r - 1]
        psi.append(value)
    lower = tuple(xp.where(failed, 0.0, -value) for value in psi)
    inverse = xp.where(failed, damped, pivot)
    dead = damped <= 0.0
    return lower, xp.where(dead, 0.0, 1.0 / xp.where(dead, 1.0, inverse))


def apply(xp: ModuleType, lower: tuple[Array, ...], diagonal: Array, momentum: Array, links: tuple[Array, ...]) -> Array:
    """The direction u = L (D (L^T m)) of the corrected momentum m (n,)."""
    inner = momentum
    for q, column in enumerate(lower, start=1):
        inner = inner + xp.where(links[q], column * ahead(xp, momentum, q), 0.0)
    scaled = diagonal * inner
    direction = scaled
    for q, column in enumerate(lower, start=1):
        direction = direction + behind(xp, xp.where(links[q], column * scaled, 0.0), q)
    return direction


def norm(xp: ModuleType, x: Array) -> tuple[Array, Array]:
    """(peak, root) with |x| = peak * root, formed so that no square of a finite number overflows."""
    peak = xp.max(xp.abs(x))
    peak = xp.where(peak > 0.0, peak, xp.ones_like(peak))
    scaled = x / peak
    return peak, xp.sqrt(xp.sum(scaled * scaled))


def graft_target(xp: ModuleType, grad: Array, momentum: Array, variance: Array, uncorrected: Array, hyper: Hyper) -> Array:
    """The direction whose norm is taken over.

    Args:
        xp: array namespace.
        grad: gradient (n,).
        momentum: corrected momentum (n,).
        variance: corrected, undamped stats row 0 (n,).
        uncorrected: stats row 0 as stored (n,).
        hyper: `graft` picks adam: m^/(sqrt(d^) + 1e-8); adam_uncorrected: m^/(sqrt(d) + 1e-8); rmsprop: g/(sqrt(d^) + 1e-8); sgd: g.
    """
    match hyper.graft:
        case "adam":
            return momentum / (xp.sqrt(variance) + GRAFT_EPS)
        case "adam_uncorrected":
            return momentum / (xp.sqrt(uncorrected) + GRAFT_EPS)
        case "rmsprop":
            return grad / (xp.sqrt(variance) + GRAFT_EPS)
        case _:
            return grad


def graft(xp: ModuleType, direction: Array, target: Array) -> Array:
    """The direction with the target's Euclidean norm; a zero direction stays zero, one that is not finite becomes NaN throughout."""
    peak, root = norm(xp, direction)
    target_peak, target_root = norm(xp, target)
    ratio = xp.where(root == 0.0, xp.zeros_like(root), target_root / xp.where(root == 0.0, 1.0, root))
    return (direction / peak) * ratio * target_peak


def direction(
    xp: ModuleType, grad: Array, momentum: Array, stats: Array, count: Array, links: tuple[Array, ...], hyper: Hyper
) -> tuple[Array, Array, Array, Array]:
    """Accumulate, factor and apply for one tensor.

    Args:
        xp: array namespace.
        grad: gradient (n,), n >= 1.
        momentum: stored momentum (n,).
        stats: stored statistics (b + 1, n).
        count: this step's number, from 1, a scalar array.
        links: chain masks.
        hyper: the method's settings.

    Returns:
        (direction before grafting, grafting target, new momentum, new stats).
    """
    numbers = decay_numbers(hyper, xp)
    momentum, stats = accumulate(xp, momentum, stats, grad, links, hyper)
    steps = xp.asarray(count, dtype=grad.dtype)
    corrected_momentum = momentum / correction(xp, steps, numbers.log_beta1)
    corrected_stats = stats / correction(xp, steps, numbers.log_beta2)
    lower, diagonal = factor(xp, corrected_stats, links, hyper)
    u = apply(xp, lower, diagonal, corrected_momentum, links)
    target = graft_target(xp, grad, corrected_momentum, corrected_stats[0], stats[0], hyper)
    return u, target, momentum, stats


def step_decay(hyper: Hyper) -> float:
    """The decay that joins the step: none where it has joined the gradient."""
    return hyper.weight_decay if hyper.decoupled_weight_decay else 0.0


def step(
    xp: ModuleType, param: Array, grad: Array, momentum: Array, stats: Array, count: Array, hyper: Hyper
) -> tuple[Array, Array, Array]:
    """One whole step of one tensor of any shape S: p <- p - lr (u + weight_decay p), the decay where it is decoupled.

    Args:
        xp: array namespace.
        param: parameter, shape S.
        grad: gradient, shape S.
        momentum: shape S. stats: shape `(b + 1, *S)`.
        count: this step's number, from 1, a scalar array.
        hyper: the method's settings.

    Returns:
        (new param, new momentum, new stats), shapes kept.
    """
    if 0 in param.shape:
        return param, momentum, stats
    flat = effective_gradient(grad, param, hyper).reshape(-1)
    links = chain_links(xp, flat, hyper.band, chain_length(hyper.chain, tuple(param.shape)))
    u, target, new_momentum, new_stats = direction(xp, flat, momentum.reshape(-1), stats.reshape(hyper.band + 1, -1), count, links, hyper)
    if hyper.graft != "none":
        u = graft(xp, u, target)
    if hyper.lr == 0.0:  # keeps every bit, of -0 and beside a direction that is not finite too
        return param, new_momentum.reshape(momentum.shape), new_stats.reshape(stats.shape)
    new_param = param - hyper.lr * (u.reshape(param.shape) + step_decay(hyper) * param)
    return new_param, new_momentum.reshape(momentum.shape), new_stats.reshape(stats.shape)
