"""What follows from a study's records."""

from __future__ import annotations

import pytest

from sonew_autotune.measure import Ratio
from sonew_autotune.report import analysis
from sonew_autotune.report.importance import FEWEST_TRIALS, importances
from sonew_autotune.report.studies import read_study
from sonew_autotune.search.results import Record
from sonew_autotune.trials.outcome import Failure
from tests.autotune.report.made import raw_study, records_of, space_of

AXES = (("a", (1, 2)), ("b", (10, 20, 30)))


def record(a: int, b: int, ratio: float | None) -> Record:
    if ratio is None:
        return Record({"a": a, "b": b}, failure=Failure("wrong", "planted"))
    return Record({"a": a, "b": b}, ratio=Ratio(ratio, 0.9 * ratio, 1.1 * ratio))


RECORDS = [record(1, 10, 1.0), record(2, 10, 0.5), record(1, 20, None), record(2, 20, 0.8), record(1, 30, 0.25)]


def test_gains_are_inverse_ratios_in_the_order_they_finished() -> None:
    trials = analysis.timed(RECORDS)

    assert [trial.number for trial in trials] == [1, 2, 4, 5]
    assert [trial.gain.median for trial in trials] == [1.0, 2.0, 1.25, 4.0]
    assert trials[1].gain.low == pytest.approx(1 / 0.55)
    assert analysis.running_best(trials) == [1.0, 2.0, 2.0, 4.0]
    leader = analysis.best(RECORDS)
    assert leader is not None
    assert leader.number == 5
    assert analysis.best([record(1, 10, None)]) is None


def test_the_effect_of_a_value_is_the_median_of_its_points() -> None:
    first, second = analysis.effects(RECORDS, "a", (1, 2, 3))

    assert (first.value, first.gain, first.best, first.timed, first.failed) == (1, 2.5, 4.0, 2, 1)
    assert (second.value, second.gain, second.best, second.timed, second.failed) == (2, 1.625, 2.0, 2, 0)


def test_cells_hold_the_best_of_a_pair() -> None:
    grid = analysis.cells([*RECORDS, record(2, 10, 0.1)], AXES, ("a", "b"))

    assert [[cell.gain for cell in line] for line in grid] == [[1.0, 10.0], [None, 1.25], [4.0, None]]
    assert [[cell.tried for cell in line] for line in grid] == [[1, 2], [1, 1], [1, 0]]
    assert grid[1][0].failed == 1


def test_one_change_alone_is_found() -> None:
    single = analysis.alone(RECORDS, {"a": 1, "b": 10}, "a", 2)

    assert single is not None
    assert single.gain.median == 2.0
    assert analysis.alone(RECORDS, {"a": 1, "b": 10}, "b", 20) is None  # it failed


def test_failures_are_counted_in_the_order_of_their_kinds() -> None:
    counts = analysis.failure_counts(analysis.failed(records_of("cpu", 40, failures=("crash", "wrong", "crash"))))

    assert list(counts.items()) == [("wrong", 1), ("crash", 2)]


def test_the_parameter_that_decides_is_the_most_important() -> None:
    """In the made-up studies the first parameter counts most."""
    space = space_of("cpu")
    shares = importances(records_of("cpu", 40, failures=()), space.axes)

    assert sum(shares.values()) == pytest.approx(1.0)
    assert next(iter(shares)) == "segment"
    study = read_study(raw_study(), ())
    assert analysis.leading_pair(study, {"threads": 0.7, "block": 0.2, "segment": 0.1}) == ("threads", "block")


def test_too_few_trials_have_no_importance() -> None:
    records = records_of("cpu", FEWEST_TRIALS, failures=())

    assert importances(records, space_of("cpu").axes) != {}
    assert importances(records[:-1], space_of("cpu").axes) == {}


def test_without_importances_the_widest_effects_lead() -> None:
    study = read_study(raw_study(), ())

    assert analysis.leading_pair(study, {}) == ("segment", "block")
