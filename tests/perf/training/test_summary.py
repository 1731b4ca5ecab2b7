from __future__ import annotations

import math

import pytest

from sonew_perf.training.runs import grid
from sonew_perf.training.summary import Curve, comparisons, curves

Losses = dict[str, dict[float, tuple[float | None, ...]]]

RATES = [1e-3, 3e-3, 9e-3]
LOSSES: Losses = {
    "sonew": {1e-3: (80.0, 82.0), 3e-3: (70.0, 72.0), 9e-3: (75.0, None)},
    "adamw": {1e-3: (120.0, 124.0), 3e-3: (100.0, 90.0), 9e-3: (110.0, 111.0)},
}


def _curves(losses: Losses) -> list[Curve]:
    runs = grid(list(losses), [1], RATES, range(2), steps=1, batch=1)
    return curves(runs, [{"loss": losses[run.method][run.lr][run.seed]} for run in runs])


def test_each_method_is_judged_at_its_own_best_rate() -> None:
    ours, theirs = _curves(LOSSES)
    assert (ours.label, ours.best.lr, ours.best.mean, ours.inside) == ("SONew band 1", 3e-3, 71.0, True)
    assert (theirs.label, theirs.best.lr, theirs.best.mean, theirs.inside) == ("AdamW", 3e-3, 95.0, True)
    assert math.isinf(ours.cells[2].mean)


def test_the_comparison_is_relative_to_adamw_with_its_range_over_seeds() -> None:
    (comparison,) = comparisons(_curves(LOSSES))
    assert (comparison.label, comparison.baseline, comparison.judged) == ("SONew band 1", "AdamW", True)
    assert comparison.relative == pytest.approx(71 / 95 - 1)
    assert comparison.per_seed == pytest.approx((70 / 100 - 1, 72 / 90 - 1))


@pytest.mark.parametrize("edge", [1e-3, 9e-3])
@pytest.mark.parametrize("method", ["sonew", "adamw"])
def test_an_optimum_at_either_edge_of_the_grid_is_not_judged(method: str, edge: float) -> None:
    losses = {name: dict(cells) for name, cells in LOSSES.items()}
    losses[method][edge] = (1.0, 1.0)
    (comparison,) = comparisons(_curves(losses))
    assert not comparison.judged
    assert comparison.obstacle == f"the optimum of {'AdamW' if method == 'adamw' else 'SONew band 1'} lies at the edge of the grid"


@pytest.mark.parametrize(
    ("diverging", "named"), [(["sonew"], "SONew band 1"), (["adamw"], "AdamW"), (["sonew", "adamw"], "SONew band 1 and AdamW")]
)
def test_a_method_that_always_diverged_is_named_and_not_judged(diverging: list[str], named: str) -> None:
    lost: dict[float, tuple[float | None, ...]] = dict.fromkeys(RATES, (None, 1.0))
    found = _curves(LOSSES | dict.fromkeys(diverging, lost))
    assert [curve.diverged for curve in found] == [name in diverging for name in LOSSES]
    assert not any(curve.inside for curve in found if curve.diverged)
    (comparison,) = comparisons(found)
    assert (comparison.judged, comparison.relative, comparison.per_seed) == (False, None, ())
    assert comparison.obstacle == f"{named} diverged at every learning rate"


@pytest.mark.parametrize("method", list(LOSSES))
def test_a_method_alone_has_no_comparison(method: str) -> None:
    assert comparisons(_curves({method: LOSSES[method]})) == []
