from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from sonew_perf.history.regressions import find_regressions
from sonew_perf.history.tickets import Ticket, ticket_id
from sonew_perf.records.model import Point, Series
from tests.perf.history.made import FakeIndex, a_run, a_series, commit, points_of, runs_of

SERIES = a_series()


def stairs(*levels: tuple[int, float], seed: int = 0) -> np.ndarray:
    """Levels of so many points each, with one percent of noise."""
    values = np.concatenate([np.full(count, level) for count, level in levels])
    noisy: np.ndarray = values * np.exp(0.01 * np.random.default_rng(seed).standard_normal(len(values)))
    return noisy


def index_of(medians: Sequence[float] | np.ndarray, series: Series = SERIES) -> FakeIndex:
    return FakeIndex({series: points_of(medians, series)}, runs_of(len(medians)))


def test_a_regression_says_what_where_and_how_much() -> None:
    medians = stairs((20, 4.0), (20, 5.0))
    [found] = find_regressions(index_of(medians), {})
    ratio = np.median(medians[20:]) / np.median(medians[:20])
    assert (found.id, found.series, found.title) == (f"{SERIES.id}-run-0020", SERIES.id, SERIES.title)
    assert (found.kernel, found.machine, found.direction) == ("step", "cpu1", "slower")
    assert (found.last_good, found.first_bad, found.good_commit, found.bad_commit) == ("run-0019", "run-0020", commit(19), commit(20))
    assert found.ratio == pytest.approx(ratio, rel=1e-4)
    assert found.ms == pytest.approx(np.median(medians[20:]) - np.median(medians[:20]), rel=1e-4)
    assert found.bisect.startswith("git bisect start ")
    assert found.date == found.since == a_run(20).date
    assert (found.state, found.note, found.author, found.recovered, found.unsettled) == ("open", "", "", "", True)


def test_what_became_faster_is_none() -> None:
    assert find_regressions(index_of(stairs((20, 5.0), (20, 4.0))), {}) == []


@pytest.mark.parametrize(("unit", "measure", "scale"), [("s", "time", 1000.0), ("bytes", "peak memory", None)])
def test_the_cost_is_in_milliseconds_where_the_series_is_a_time(unit: str, measure: str, scale: float | None) -> None:
    medians = stairs((20, 4.0), (20, 5.0))
    [found] = find_regressions(index_of(medians, a_series(unit=unit, measure=measure)), {})
    lost = np.median(medians[20:]) - np.median(medians[:20])
    assert found.ms == (None if scale is None else pytest.approx(scale * lost, rel=1e-4))


def test_the_newest_come_first_and_series_keep_apart() -> None:
    other = a_series(band=4)
    points: dict[Series, list[Point]] = {
        SERIES: points_of(stairs((10, 4.0), (15, 5.0), (15, 6.0)), SERIES),
        other: points_of(stairs((15, 4.0), (25, 5.0)), other),
    }
    found = find_regressions(FakeIndex(points, runs_of(40)), {})
    assert [(one.series, one.first_bad) for one in found] == [(SERIES.id, "run-0025"), (other.id, "run-0015"), (SERIES.id, "run-0010")]


def test_a_later_return_to_the_old_level_is_a_recovery() -> None:
    [found] = find_regressions(index_of(stairs((15, 4.0), (15, 5.0), (15, 4.0))), {})
    assert (found.recovered, found.unsettled) == ("run-0030", False)
    [half] = find_regressions(index_of(stairs((15, 4.0), (15, 5.0), (15, 4.5))), {})
    assert (half.recovered, half.unsettled) == ("", True)
    later, earlier = find_regressions(index_of(stairs((15, 4.0), (15, 5.0), (15, 6.0), (15, 5.0))), {})
    assert (earlier.recovered, later.recovered) == ("", "run-0045")


def test_a_ticket_is_what_somebody_said() -> None:
    ticket = Ticket(id=ticket_id(SERIES.id, "run-0020"), state="accepted", note="meant", author="Ada", date="2026-05-01T00:00:00+00:00")
    other = Ticket(id=ticket_id("another", "run-0020"), state="fixed")
    [found] = find_regressions(index_of(stairs((20, 4.0), (20, 5.0))), {each.id: each for each in (ticket, other)})
    assert (found.state, found.note, found.author, found.since) == ("accepted", "meant", "Ada", ticket.date)
    assert found.unsettled is False


def test_a_ticket_stays_with_a_regression_whose_first_run_turns_out_to_be_a_neighbour() -> None:
    index = index_of(stairs((20, 4.0), (20, 5.0)))
    near = {name: Ticket(id=name, state="ignored") for name in (ticket_id(SERIES.id, "run-0021"),)}
    [found] = find_regressions(index, near)
    assert (found.id, found.state, found.first_bad) == (ticket_id(SERIES.id, "run-0021"), "ignored", "run-0020")
    far = {name: Ticket(id=name, state="ignored") for name in (ticket_id(SERIES.id, "run-0023"),)}
    [found] = find_regressions(index, far)
    assert (found.id, found.state) == (ticket_id(SERIES.id, "run-0020"), "open")


def test_of_two_tickets_the_newest_counts() -> None:
    tickets = [
        Ticket(id=ticket_id(SERIES.id, "run-0020"), state="ignored", date="2026-05-01T00:00:00+00:00"),
        Ticket(id=ticket_id(SERIES.id, "run-0019"), state="fixed", date="2026-06-01T00:00:00+00:00"),
    ]
    [found] = find_regressions(index_of(stairs((20, 4.0), (20, 5.0))), {ticket.id: ticket for ticket in tickets})
    assert (found.state, found.id) == ("fixed", tickets[1].id)


def test_an_empty_store_has_none() -> None:
    assert find_regressions(FakeIndex({}, {}), {}) == []
