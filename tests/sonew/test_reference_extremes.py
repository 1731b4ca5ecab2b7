"""The reference where numbers end: zero, denormal, huge and NaN gradients, singular windows, the fallback rule, tiny tensors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from sonew import reference
from sonew.config import GRAFTS, Hyper
from tests import oracle
from tests.strategies import Case, cases, gradient, history
from tests.tolerances import assert_close

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy announces the infinities these tests are about


def run(grads: np.ndarray, hyper: Hyper) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(last direction, momentum, stats) from a fresh state, in the gradients' own type."""
    zeros = np.zeros_like(grads[0])
    moved, momentum, stats = zeros, zeros, np.zeros((hyper.band + 1, *zeros.shape), grads.dtype)
    for count, grad in enumerate(grads, start=1):
        moved, momentum, stats = reference.step(np, zeros, grad, momentum, stats, np.asarray(count), replace(hyper, lr=1.0))
    return -moved, momentum, stats


def run_oracle(grads: np.ndarray, hyper: Hyper) -> oracle.DenseStep:
    """The oracle's last step in float64."""
    state = oracle.DenseState.zeros(grads[0].size)
    for grad in grads[:-1].astype(np.float64):
        state = oracle.advance(grad, state, hyper)
    return oracle.step(np.zeros(grads[0].shape), grads[-1].astype(np.float64), state, hyper)


def factor(rows: list[list[float]], hyper: Hyper) -> tuple[list[list[float]], list[float]]:
    """(L, D) of one chain with these statistics."""
    stats = np.array(rows)
    lower, diagonal = reference.factor(np, stats, reference.chain_links(np, stats[0], hyper.band, stats.shape[1]), hyper)
    return [column.tolist() for column in lower], diagonal.tolist()


@pytest.mark.parametrize("graft", GRAFTS)
@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_zero_gradients_move_nothing(graft: str, eps: float) -> None:
    hyper = Hyper(band=2, eps=eps, graft=graft)  # type: ignore[arg-type]  # parametrised over GRAFTS
    direction, momentum, stats = run(np.zeros((3, 5), np.float32), hyper)
    for array in (direction, momentum, stats):
        assert_close(array, np.zeros(array.shape), "exact")


def test_state_decays_under_zero_gradients() -> None:
    grads = np.concatenate([history(3, (9,), band=1), np.zeros((2, 9), np.float32)])
    direction, momentum, stats = run(grads, Hyper())
    want = run_oracle(grads, Hyper())
    assert_close(direction, want.direction, "float32")
    assert_close(momentum, want.state.momentum, "float32 averages")
    assert_close(stats, oracle.band_rows(want.state.matrix, 1), "float32 averages")


@pytest.mark.parametrize("band", [0, 1, 4])
def test_denormal_gradients_leave_a_diagonal_step(band: int) -> None:
    """Their squares vanish, so A = eps and u = m^/eps; the direction keeps the few digits that denormals have."""
    grads = np.stack([gradient(seed, (20,), "denormal") for seed in range(2)])
    direction, momentum, stats = run(grads, Hyper(band=band, graft="none"))
    assert np.count_nonzero(stats) == 0
    assert np.count_nonzero(momentum) > 10
    assert_close(direction, run_oracle(grads, Hyper(band=band, graft="none")).direction, "float32 ill")


@pytest.mark.parametrize("graft", GRAFTS)
@pytest.mark.parametrize("band", [0, 1, 4])
def test_gradients_whose_squares_just_fit(band: int, graft: str) -> None:
    """At 1e17 every number of the step still fits in float32, and so does every grafting norm."""
    hyper = Hyper(band=band, graft=graft)  # type: ignore[arg-type]  # parametrised over GRAFTS
    grads = history(7, (40,), band=band) * np.float32(1e17)
    assert_close(run(grads, hyper)[0], run_oracle(grads, hyper).direction, "float32")


@pytest.mark.parametrize("value", [1e20, -3e38, np.inf, np.nan])
def test_overflow_shows_in_the_state(value: float) -> None:
    """The square of an overflowing gradient is an infinity or NaN of the state, not some large number."""
    grads = history(8, (9,), band=1)
    grads[-1, 4] = value
    _, momentum, stats = run(grads, Hyper())
    assert not np.isfinite(stats[0, 4])
    assert np.isfinite(np.delete(stats[0], 4)).all()
    assert np.isfinite(momentum[4]) == np.isfinite(np.float32(value))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_direction_that_is_not_finite_grafts_to_nan_throughout(value: float) -> None:
    """A norm that is not finite scales nothing: no element of the tensor may seem to have been stepped."""
    assert np.isnan(reference.graft(np, np.array([1.0, value, 0.0]), np.ones(3))).all()


def test_nan_diagonal_stays_nan() -> None:
    lower, diagonal = factor([[1.0, np.nan, 4.0], [0.5, 0.5, 0.0]], Hyper(band=1, eps=0.0))
    assert lower == [[0.0, 0.0, 0.0]]
    assert_close(diagonal, [1.0, np.nan, 0.25], "exact")


def test_dead_coordinate_gets_no_step_and_couples_nothing() -> None:
    """A_jj = 0 (eps = 0): D_j = 0, and a column that sees it in its window falls back to its own diagonal."""
    lower, diagonal = factor([[2.0, 0.0, 4.0], [0.0, 0.0, 0.0]], Hyper(band=1, eps=0.0))
    assert lower == [[0.0, 0.0, 0.0]]
    assert diagonal == [0.5, 0.0, 0.25]


def test_one_gradient_without_damping_is_singular_and_falls_back() -> None:
    """One g g^T has rank one: every window but the last has a zero pivot, so the step is the diagonal method's."""
    grads = np.array([[1.0, 2.0, -4.0, 0.5, 8.0]])  # powers of two: the pivots vanish exactly
    hyper = Hyper(band=2, beta1=0.0, beta2=0.0, eps=0.0, graft="none")
    assert_close(run(grads, hyper)[0], 1.0 / grads[0], "exact")


@pytest.mark.parametrize(("gamma", "falls"), [(0.49, False), (0.5, True), (0.51, True)])
def test_pivot_at_the_threshold_falls_back(gamma: float, falls: bool) -> None:
    """A = [[2, 1], [1, 1]]: the last pivot of column 0 is 1 = 0.5 A_00."""
    lower, diagonal = factor([[2.0, 1.0], [1.0, 0.0]], Hyper(band=1, eps=0.0, gamma=gamma))
    assert lower == [[0.0 if falls else -1.0, 0.0]]
    assert diagonal == [0.5 if falls else 1.0, 1.0]


def test_failing_pivot_anywhere_in_the_window_drops_the_whole_column() -> None:
    """Elements 1 and 2 are nearly dependent, element 0 is coupled to neither strongly: its window still fails."""
    rows = [[1.0, 1.0, 1.0], [0.25, 0.75, 0.0], [0.25, 0.0, 0.0]]
    lower, diagonal = factor(rows, Hyper(band=2, eps=0.0, gamma=0.5))  # pivot of element 1: 1 - 0.75^2 = 0.4375
    assert [column[0] for column in lower] == [0.0, 0.0]
    assert lower[0][1] == 0.0
    assert diagonal == [1.0, 1.0, 1.0]


def test_damping_of_the_diagonal() -> None:
    """A_jj = H_jj (1 + eps_rel) + eps, in the window and in the fallback alike; off-diagonals stay."""
    lower, diagonal = factor([[3.0, 1.0], [1.0, 0.0]], Hyper(band=1, eps=0.5, eps_rel=0.5))
    assert lower == [[-0.5, 0.0]]
    assert diagonal == [1 / (5.0 - 0.5), 0.5]
    assert factor([[3.0, 1.0], [1.0, 0.0]], Hyper(band=1, eps=0.5, eps_rel=0.5, gamma=1.0))[1] == [0.2, 0.5]


@pytest.mark.parametrize("band", [1, 2, 5])
def test_mixed_columns_equal_the_transcribed_rule(band: int) -> None:
    """Some columns fall back, some do not, and the step is the oracle's."""
    hyper = Hyper(band=band, gamma=0.8, graft="none", chain=11)
    grads = history(9, (33,), band=band).astype(np.float64)
    want = run_oracle(grads, hyper)
    assert 3 < np.count_nonzero(want.fallen) < 33
    assert_close(run(grads, hyper)[0], want.direction, "float64")


@given(cases(kinds=("normal", "zero", "sparse", "constant")))
@settings(max_examples=40)
def test_low_rank_histories_equal_the_transcribed_rule(case: Case) -> None:
    hyper = replace(case.hyper, eps=1e-3, lr=1.0)
    assert_close(run(case.grads, hyper)[0].reshape(-1), run_oracle(case.grads, hyper).direction, "float64 ill")


@pytest.mark.parametrize("band", [0, 1, 2, 8])
def test_tensors_smaller_than_a_window(band: int) -> None:
    for n in sorted({0, 1, band, band + 1}):
        grads = history(n, (n,), band=band).astype(np.float64)
        direction, _, stats = run(grads, Hyper(band=band))
        assert_close(direction, run_oracle(grads, Hyper(band=band)).direction, "float64", context=f"{n} elements")
        assert np.count_nonzero(stats) == sum(max(n - k, 0) for k in range(band + 1))


@pytest.mark.parametrize("size", [1e-44, 1e-30, 1.0, 1e30, 3e38])
@pytest.mark.parametrize("target", [1e-30, 1.0, 1e30])
def test_graft_of_any_finite_size(size: float, target: float) -> None:
    """No norm overflows or vanishes: the grafted direction has the target's length to float32's last digits."""
    rng = np.random.default_rng(0)
    direction = (rng.uniform(-1, 1, 50) * size).astype(np.float32)
    wanted = (rng.uniform(-1, 1, 50) * target).astype(np.float32)
    grafted = reference.graft(np, direction, wanted)
    assert grafted.dtype == np.float32
    unit = direction / np.linalg.norm(direction.astype(np.float64))
    assert_close(grafted, unit * np.linalg.norm(wanted.astype(np.float64)), "float32")


def test_graft_of_a_zero_direction_is_zero() -> None:
    assert_close(reference.graft(np, np.zeros(4), np.ones(4)), np.zeros(4), "exact")
    assert_close(reference.graft(np, np.ones(4), np.zeros(4)), np.zeros(4), "exact")


@pytest.mark.parametrize("beta", [0.9, 0.99, 0.999999])
@pytest.mark.parametrize("count", [1, 2, 1000, 10**7])
def test_correction_keeps_its_digits(beta: float, count: int) -> None:
    """1 - beta^t in float32 is right to float32's digits where the plain difference is not."""
    numbers = reference.decay_numbers(Hyper(beta2=beta))
    got = reference.correction(np, np.float32(count), numbers.log_beta2)
    assert got.dtype == np.float32
    assert_close(got, -np.expm1(count * np.log(beta)), "float32 averages")


def test_correction_without_memory_is_one() -> None:
    assert reference.correction(np, np.float32(1), reference.decay_numbers(Hyper(beta1=0.0)).log_beta1) == 1.0
