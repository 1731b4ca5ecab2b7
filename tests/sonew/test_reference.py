"""The reference against the dense oracle, and the algebra every preconditioner of this family obeys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonew import reference
from sonew.config import GRAFTS, Hyper
from tests import oracle
from tests.strategies import Case, cases, history, hypers, seeds, shapes
from tests.tolerances import assert_close


def run(case: Case, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(param, momentum, stats) of the reference after the case's steps; the parameter moves in the last one only.

    The first steps of a history have windows of low rank, where the direction has no digits to compare.
    """
    param = result = case.param.astype(dtype)
    momentum, stats = np.zeros_like(param), np.zeros((case.hyper.band + 1, *param.shape), dtype)
    with np.errstate(all="ignore"):
        for count, grad in enumerate(case.grads, start=1):
            result, momentum, stats = reference.step(np, param, grad.astype(dtype), momentum, stats, np.asarray(count), case.hyper)
    return result, momentum, stats


def run_oracle(case: Case) -> oracle.DenseStep:
    """The oracle after the case's steps; the parameter moves in the last one only."""
    state = oracle.DenseState.zeros(case.param.size)
    for grad in case.grads[:-1]:
        state = oracle.advance(grad, state, case.hyper)
    return oracle.step(case.param, case.grads[-1], state, case.hyper)


def mean_stats(seed: int, shape: tuple[int, ...], hyper: Hyper) -> np.ndarray:
    """Well-conditioned corrected statistics (band + 1, n)."""
    grads = history(seed, shape, band=hyper.band).astype(np.float64).reshape(-1, int(np.prod(shape)))
    mask = oracle.same_band(grads.shape[1], hyper.band, oracle.chain_elements(hyper, shape))
    return oracle.band_rows(np.where(mask, grads.T @ grads / len(grads), 0.0), hyper.band)


def masks(hyper: Hyper, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """The reference's chain links."""
    return reference.chain_links(np, np.zeros(int(np.prod(shape))), hyper.band, oracle.chain_elements(hyper, shape))


def dense_x(lower: tuple[np.ndarray, ...], diagonal: np.ndarray) -> np.ndarray:
    """X = L D L^T as a matrix."""
    n = len(diagonal)
    unit_lower = np.eye(n)
    for q, column in enumerate(lower, start=1):
        for j in range(n - q):
            unit_lower[j + q, j] = column[j]
    return unit_lower @ np.diag(diagonal) @ unit_lower.T


def directions(grads: np.ndarray, hyper: Hyper) -> np.ndarray:
    """The last direction (n,), grafted, of flat gradients (steps, n): what a unit step without decay subtracts from 0."""
    return -run(Case(replace(hyper, lr=1.0, weight_decay=0.0), np.zeros(grads.shape[1]), grads))[0]


@settings(max_examples=60)
@given(cases())
def test_whole_steps_equal_the_oracle(case: Case) -> None:
    param, momentum, stats = run(case)
    want = run_oracle(case)
    rows = oracle.band_rows(want.state.matrix, case.hyper.band).reshape(stats.shape)
    assert_close(momentum.reshape(-1), want.state.momentum, "float64", context="momentum")
    assert_close(stats, rows, "float64", context="stats")
    assert_close(param, want.param, "float64", context="param")


@settings(max_examples=25)
@given(cases().filter(lambda case: case.param.size >= 8))  # in fewer elements a mean of signed numbers may cancel to any degree
def test_float32_stays_near_the_oracle(case: Case) -> None:
    case = replace_hyper(case, gamma=0.0, lr=1.0)  # a pivot near its threshold may fall on either side
    param, momentum, stats = run(case, np.float32)
    want = run_oracle(case)
    assert param.dtype == momentum.dtype == stats.dtype == np.float32
    assert_close(momentum.reshape(-1), want.state.momentum, "float32 averages", context="momentum")
    assert_close(stats, oracle.band_rows(want.state.matrix, case.hyper.band).reshape(stats.shape), "float32 averages", context="stats")
    assert_close(param, want.param, "float32", context="param")


def replace_hyper(case: Case, **changes: Any) -> Case:
    """The case with other settings."""
    return Case(replace(case.hyper, **changes), case.param, case.grads)


@settings(max_examples=40)
@given(hypers(), st.data(), seeds())
def test_inverse_of_x_is_a_on_the_band(hyper: Hyper, data: st.DataObject, seed: int) -> None:
    """The defining property, where no column falls back."""
    hyper = replace(hyper, gamma=0.0)
    shape = data.draw(shapes(hyper.band).filter(lambda shape: 0 not in shape))
    n = int(np.prod(shape))
    stats, links = mean_stats(seed, shape, hyper), masks(hyper, shape)
    lower, diagonal = reference.factor(np, stats, links, hyper)
    matrix = np.zeros((n, n))
    for k, row in enumerate(stats):
        for i in range(n - k):
            matrix[i, i + k] = matrix[i + k, i] = row[i]
    mask = oracle.same_band(n, hyper.band, oracle.chain_elements(hyper, shape))
    a = oracle.damp(matrix, hyper)
    on_band, off_band, definite = oracle.property_errors(dense_x(lower, diagonal), a, mask)
    assert on_band <= 1e-9, "the inverse of X differs from A on the band"
    assert off_band == 0, "X leaks off the band"
    assert definite > 0, "X is not positive definite"
    want, fallen = oracle.preconditioner(a, mask)
    assert not fallen.any()
    assert_close(dense_x(lower, diagonal), want, "float64", context="X")


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_full_band_is_the_dense_inverse(n: int) -> None:
    hyper = Hyper(band=n - 1, eps=1e-3)
    grads = history(n, (n,), band=n - 1).astype(np.float64)
    dense = grads.T @ grads / len(grads)
    lower, diagonal = reference.factor(np, oracle.band_rows(dense, n - 1), masks(hyper, (n,)), hyper)
    assert_close(dense_x(lower, diagonal), np.linalg.inv(dense + 1e-3 * np.eye(n)), "float64")


@given(seeds(), st.sampled_from(GRAFTS))
@settings(max_examples=15)
def test_band_zero_is_the_diagonal_method(seed: int, graft: Any) -> None:
    hyper = Hyper(band=0, eps=1e-4, eps_rel=0.1, graft=graft)
    grads = history(seed, (17,), band=2).astype(np.float64)
    weights1, weights2 = (beta ** np.arange(len(grads))[::-1, None] for beta in (hyper.beta1, hyper.beta2))
    momentum = (weights1 * grads).sum(0) / weights1.sum()
    variance = (weights2 * grads**2).sum(0) / weights2.sum()
    want = momentum / (variance * 1.1 + 1e-4)
    target = {
        "none": want,
        "adam": momentum / (np.sqrt(variance) + 1e-8),
        "adam_uncorrected": momentum / (np.sqrt(variance * weights2.sum() * 0.01) + 1e-8),
        "sgd": grads[-1],
        "rmsprop": grads[-1] / (np.sqrt(variance) + 1e-8),
    }[graft]
    assert_close(directions(grads, hyper), want * np.linalg.norm(target) / np.linalg.norm(want), "float64")


@given(hypers(), seeds())
@settings(max_examples=20)
def test_flipped_signs_flip_the_direction_exactly(hyper: Hyper, seed: int) -> None:
    """With S = diag(+-1): H -> S H S gives X -> S X S, so u -> S u, to the last bit."""
    grads = history(seed, (23,), band=hyper.band).astype(np.float64)
    signs = np.where(np.random.default_rng(seed).random(23) < 0.5, -1.0, 1.0)
    assert_close(directions(grads * signs, hyper), signs * directions(grads, hyper), "exact")


@given(hypers(), seeds(), st.sampled_from((2.0**-20, 0.25, 2.0**30)))
@settings(max_examples=20)
def test_scaling_without_absolute_damping(hyper: Hyper, seed: int, factor: float) -> None:
    """Gradients times c give X / c^2, so u / c before grafting and the same unit direction after; exact for powers of two."""
    hyper = replace(hyper, eps=0.0)
    grads = history(seed, (19,), band=hyper.band).astype(np.float64)
    none, sgd = replace(hyper, graft="none"), replace(hyper, graft="sgd")
    assert_close(directions(grads * factor, none), directions(grads, none) / factor, "exact", context="none")
    assert_close(directions(grads * factor, sgd), directions(grads, sgd) * factor, "exact", context="sgd")
    scaled, plain = directions(grads * factor, hyper), directions(grads, hyper)
    assert_close(scaled / np.linalg.norm(scaled), plain / np.linalg.norm(plain), "float64", context=hyper.graft)


@given(st.integers(1, 8), st.integers(1, 30), seeds())
@settings(max_examples=20)
def test_zero_couplings_decouple(band: int, cut: int, seed: int) -> None:
    """Where all couplings across a cut vanish, the two sides are factored as if alone, to the last bit."""
    hyper, n = Hyper(band=band, eps=1e-3), 31
    stats = mean_stats(seed, (n,), hyper)
    for k in range(1, band + 1):
        stats[k, max(cut - k, 0) : cut] = 0.0
    lower, diagonal = reference.factor(np, stats, masks(hyper, (n,)), hyper)
    for part in (slice(0, cut), slice(cut, n)):
        alone = stats[:, part]
        want_lower, want_diagonal = reference.factor(np, alone, masks(hyper, (alone.shape[1],)), hyper)
        assert_close(diagonal[part], want_diagonal, "exact", context="D")
        for got, want in zip(lower, want_lower, strict=True):
            assert_close(got[part], want, "exact", context="L")


@given(hypers(), st.integers(2, 9), seeds())
@settings(max_examples=15)
def test_chains_do_not_know_each_other(hyper: Hyper, chain: int, seed: int) -> None:
    """Ungrafted, a tensor cut into chains steps as its pieces do, to the last bit, also beside a chain of NaN and infinities."""
    hyper, n = replace(hyper, chain=chain, graft="none"), 20
    grads = history(seed, (n,), band=hyper.band).astype(np.float64)
    grads[-1, n - n % chain - chain : n - n % chain] = np.resize([np.nan, np.inf, -np.inf], chain)
    got = directions(grads, hyper)
    for start in range(0, n, chain):
        alone = directions(grads[:, start : start + chain], replace(hyper, chain="tensor"))
        assert_close(got[start : start + chain], alone, "exact", context=f"chain at {start}")


def test_rows_are_chains_of_the_last_axis() -> None:
    hyper = Hyper(band=3, chain="row", graft="none", lr=1.0)
    grads = history(5, (2, 3, 7), band=3).astype(np.float64)
    got = run(Case(hyper, np.zeros((2, 3, 7)), grads))[0]
    want = run(Case(replace(hyper, chain=7), np.zeros(42), grads.reshape(-1, 42)))[0]
    assert_close(got.reshape(-1), want, "exact")
    assert np.abs(got - run(Case(replace(hyper, chain="tensor"), np.zeros((2, 3, 7)), grads))[0]).max() > 1e-3


@given(cases(largest_band=3))
@settings(max_examples=20)
def test_grafted_direction_has_the_targets_length(case: Case) -> None:
    grads = case.grads.reshape(len(case.grads), -1)
    if not grads.size:
        return
    hyper = replace(case.hyper, graft="sgd", chain="tensor")
    assert_close(np.linalg.norm(directions(grads, hyper)), np.linalg.norm(grads[-1]), "float64")


def test_decay_is_decoupled() -> None:
    """The decay reaches the parameter past the preconditioner and the state, scaled by lr."""
    grads = history(1, (6,), band=1).astype(np.float64)
    plain = run(Case(Hyper(lr=0.5), np.full(6, 2.0), grads[:1]))
    decayed = run(Case(Hyper(lr=0.5, weight_decay=0.25), np.full(6, 2.0), grads[:1]))
    assert_close(plain[0] - decayed[0], np.full(6, 0.5 * 0.25 * 2.0), "float64")
    assert_close(decayed[1], plain[1], "exact")
    assert_close(decayed[2], plain[2], "exact")
