"""On recorded noise: how often a change is seen where there is none, and whether a planted one is seen where it is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from sonew_perf.history.changes import analyse
from sonew_perf.records.model import Point
from tests.perf.history.made import points_of, recorded_points, recording, round_points, runs_of

COUNT = 60
RUNS = runs_of(COUNT)
BUSY = ("aa-cpu", "aa-cpu-long-samples")  # of a machine that others used all the time
PROBLEMS = ("65536", "4194304", "mnist-autoencoder")
BLOCK = 6  # runs in a row that stay together when a recording is drawn anew: what is correlated stays so


def _blocks(total: int, rng: np.random.Generator) -> np.ndarray:
    starts = rng.integers(total, size=COUNT // BLOCK)
    return ((starts[:, None] + np.arange(BLOCK)) % total).ravel()


def _unchanged() -> Iterator[list[Point]]:
    """Windows of the recordings, recordings drawn anew from blocks, and recorded rounds: the same work in all of them."""
    rng = np.random.default_rng(0)
    for name in BUSY:
        for case, samples in recording(name).items():
            for first in range(0, len(samples) - COUNT + 1, 20):
                yield recorded_points(name, case, np.arange(first, first + COUNT))
            for _ in range(8):
                yield recorded_points(name, case, _blocks(len(samples), rng))
    for problem in PROBLEMS:
        for band in (1, 4):
            yield from (round_points(problem, band, parity) for parity in (0, 1))


def test_at_most_one_unchanged_series_of_twenty_is_said_to_have_changed() -> None:
    found = [bool(analyse(points, RUNS).changes) for points in _unchanged()]
    assert len(found) == 108
    assert sum(found) <= len(found) / 20


def test_judged_by_their_own_numbers_the_same_series_would_be_false_alarms() -> None:
    """Why ratios are judged: the machine's own ups and downs are levels too."""
    found = [bool(analyse([Point(series=p.series, run=p.run, median=p.median) for p in points], RUNS).changes) for points in _unchanged()]
    assert sum(found) > len(found) / 4


@pytest.mark.parametrize("band", [1, 4])
def test_a_step_of_three_percent_is_found_at_the_right_run(band: int) -> None:
    """Planted at every other place in turn, to within a run. The machine itself went up and down by much more."""
    own = np.log([point.median or 0.0 for point in round_points("65536", band, 0)])
    assert np.ptp(own) > 0.04
    places = range(6, COUNT - 5, 2)
    found = 0
    for place in places:
        for parity in (0, 1):
            [*changes] = analyse(round_points("65536", band, parity, step=0.03, at=place), RUNS).changes
            found += any(abs(change.index - place) <= 1 and change.direction == "slower" for change in changes)
    assert found >= 0.8 * 2 * len(places)


def test_a_step_of_three_percent_says_how_much_and_which_commit() -> None:
    analysis = analyse(round_points("65536", 4, 0, step=0.03, at=30), RUNS)
    [change] = analysis.changes
    assert change.index == 30
    assert change.ratio == pytest.approx(1.03, abs=0.006)
    assert (change.last_good, change.first_bad) == ("run-0029", "run-0030")
    assert (change.good_commit, change.bad_commit) == (RUNS["run-0029"].commit, RUNS["run-0030"].commit)
    assert analysis.threshold < 0.03


def test_on_a_busy_machine_the_threshold_says_that_three_percent_cannot_be_seen() -> None:
    for name in BUSY:
        for case in recording(name):
            assert analyse(recorded_points(name, case, np.arange(COUNT)), RUNS).threshold > 0.015


def test_a_great_step_is_found_on_a_busy_machine_too() -> None:
    found = 0
    for place in range(20, 41):
        changes = analyse(recorded_points("aa-cpu", "SONew band 4", np.arange(COUNT), step=0.25, at=place), RUNS).changes
        found += any(abs(change.index - place) <= 1 for change in changes)
    assert found >= 17


def test_a_spike_in_recorded_noise_is_no_change() -> None:
    own = np.array([point.median for point in round_points("65536", 4, 0)], dtype=float)
    before = analyse(points_of(own), RUNS).changes
    for place in (0, 20, 40, 59):
        spiked = own.copy()
        spiked[place] *= 1.25
        assert [change.index for change in analyse(points_of(spiked), RUNS).changes] == [change.index for change in before]
