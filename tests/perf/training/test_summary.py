from __future__ import annotations

import math

import pytest

from sonew_perf.training.summary import Curve, curves
from tests.perf.training.entries import made

Losses = dict[float, tuple[float | None, ...]]

OURS: Losses = {1e-3: (80.0, 82.0), 3e-3: (70.0, 72.0), 9e-3: (75.0, None)}


def _curve(losses: Losses, method: str = "sonew") -> Curve:
    (found,) = curves(made(method, (loss,), lr=lr, seed=seed) for lr, by_seed in losses.items() for seed, loss in enumerate(by_seed))
    return found


def test_a_method_is_judged_at_its_best_rate() -> None:
    found = _curve(OURS)
    assert (found.label, found.method, found.best.lr, found.best.mean) == ("SONew band 1", "sonew", 3e-3, 71.0)
    assert (found.inside, found.diverged, found.is_grid, found.obstacle) == (True, False, True, None)
    assert math.isinf(found.cells[2].mean)


def test_rates_ascend_and_losses_are_in_the_order_of_the_seeds() -> None:
    entries = [made("adam", (100.0 * lr + seed,), lr=lr, seed=seed) for lr in (3.0, 1.0, 2.0) for seed in (1, 0)]
    (found,) = curves(entries)
    assert [(cell.lr, cell.losses) for cell in found.cells] == [(1.0, (100.0, 101.0)), (2.0, (200.0, 201.0)), (3.0, (300.0, 301.0))]


def test_methods_keep_the_order_of_the_entries() -> None:
    found = curves([made("soap", (1.0,)), made("adam", (1.0,)), made("soap", (1.0,), lr=2.0)])
    assert [(curve.label, len(curve.cells)) for curve in found] == [("SOAP", 2), ("Adam", 1)]


@pytest.mark.parametrize("edge", [1e-3, 9e-3])
def test_an_optimum_at_either_edge_of_the_grid_is_not_judged(edge: float) -> None:
    found = _curve({**OURS, edge: (1.0, 1.0)})
    assert (found.inside, found.obstacle) == (False, "the optimum of SONew band 1 lies at the edge of the grid")


def test_a_method_that_always_diverged_is_not_judged() -> None:
    found = _curve(dict.fromkeys(OURS, (None, 1.0)), "adam")
    assert (found.diverged, found.inside, found.obstacle) == (True, False, "Adam diverged at every learning rate")


def test_one_rate_is_no_grid_and_nothing_stands_in_its_way() -> None:
    found = _curve({1e-3: (80.0, 82.0)})
    assert (found.is_grid, found.obstacle) == (False, None)
