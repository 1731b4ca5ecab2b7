"""Regressions as tickets: what became slower, between which runs, and what somebody said about it."""

from __future__ import annotations

from dataclasses import asdict

from sonew_perf.dashboard.content import Content, Row
from sonew_perf.dashboard.views.plain import plain
from sonew_perf.history.regressions import Regression, regressions_of


def found_regressions(content: Content) -> list[Regression]:
    """Of the series that were analysed so far, the newest first."""
    found = [
        regression
        for series_id, history in content.analyses.items()
        if series_id in content.series
        for regression in regressions_of(history, content.run_by_id, content.tickets)
    ]
    return sorted(found, key=lambda regression: (regression.date, regression.id), reverse=True)


def regressions(content: Content) -> list[Row]:
    """The view `regressions`."""
    return [plain(asdict(regression)) for regression in found_regressions(content)]
