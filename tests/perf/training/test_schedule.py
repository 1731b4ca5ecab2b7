from __future__ import annotations

import numpy as np
import pytest

from sonew_perf.training.schedule import RULES


def paper_rates(epochs: int) -> np.ndarray:
    """The paper's rates, one per epoch, for a peak of 1."""
    return np.concatenate((np.linspace(0, 1, 5), np.linspace(1, 0, max(epochs - 3, 2))[1:-1]))[:epochs]


@pytest.mark.parametrize("per_epoch", [1, 3])
@pytest.mark.parametrize("epochs", [1, 5, 6, 7, 100])
def test_the_papers_rule_is_two_linspaces_constant_within_an_epoch(epochs: int, per_epoch: int) -> None:
    total = epochs * per_epoch
    shares = [RULES["epochs"](step, total, per_epoch) for step in range(total)]
    np.testing.assert_allclose(shares, np.repeat(paper_rates(epochs), per_epoch), atol=1e-15)


def test_a_last_epoch_that_is_cut_short_has_a_rate_of_its_own() -> None:
    shares = [RULES["epochs"](step, 29, 4) for step in range(29)]  # seven epochs and a step
    np.testing.assert_allclose(shares, np.repeat(paper_rates(8), 4)[:29], atol=1e-15)


@pytest.mark.parametrize(("total", "warm"), [(1, 1), (2, 1), (20, 1), (100, 5), (1234, 62)])
def test_the_rule_by_steps_is_one_line_up_and_one_down(total: int, warm: int) -> None:
    shares = [RULES["steps"](step, total, 7) for step in range(total)]
    np.testing.assert_allclose(shares, np.interp(range(total), [-1, warm - 1, warm, max(total, warm + 1)], [0, 1, 1, 0]), atol=1e-15)


@pytest.mark.parametrize(("rule", "after"), [("epochs", 0.0), ("steps", 0.0), ("constant", 1.0)])
@pytest.mark.parametrize("total", [4, 24, 400])
def test_after_the_schedule_nothing_climbs(rule: str, after: float, total: int) -> None:
    assert {RULES[rule](step, total, 4) for step in range(total, 2 * total + 20)} == {after}


def test_the_constant_rule_is_the_peak() -> None:
    assert [RULES["constant"](step, 9, 3) for step in range(9)] == [1.0] * 9
