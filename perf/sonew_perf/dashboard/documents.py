"""The views by name, as the server and the export hand them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from sonew.errors import SonewError
from sonew_perf.dashboard.content import Content, Json
from sonew_perf.dashboard.views.comparisons import comparisons, one_comparison
from sonew_perf.dashboard.views.convergence import convergence
from sonew_perf.dashboard.views.overview import overview
from sonew_perf.dashboard.views.regressions import regressions
from sonew_perf.dashboard.views.roofline import roofline
from sonew_perf.dashboard.views.runs import runs
from sonew_perf.dashboard.views.series import all_series, one_series

WHOLE: Final[Mapping[str, Callable[[Content], Json]]] = {
    "overview": overview,
    "series": all_series,
    "comparisons": comparisons,
    "regressions": regressions,
    "runs": runs,
    "roofline": roofline,
    "convergence": convergence,
}


class UnknownViewError(SonewError, LookupError):
    """No view has this name, or the store has no such series or comparison."""


def names(content: Content) -> list[str]:
    """Of all views but `meta`, which depends on who asks."""
    single = [f"series/{series}" for series in content.series]
    return [*WHOLE, *single, *(f"comparisons/{record['comparison']['id']}" for record in content.comparisons)]


def document(content: Content, name: str) -> Json:
    """The view of a name.

    Raises:
        UnknownViewError: there is none; the message says what there is.
    """
    if name in WHOLE:
        return WHOLE[name](content)
    kind, _, place = name.partition("/")
    if kind == "series":
        if place not in content.series:
            msg = f"The store has no series {place!r}. Choose one of the list of series."
            raise UnknownViewError(msg)
        return one_series(content, content.series[place])
    if kind == "comparisons":
        for record in content.comparisons:
            if record["comparison"]["id"] == place:
                return one_comparison(content, record)
        msg = f"The store has no comparison {place!r}. Choose one of the list of comparisons."
        raise UnknownViewError(msg)
    msg = f"There is no view {name!r}. Views: {', '.join(['meta', *WHOLE, 'series/ID', 'comparisons/ID'])}."
    raise UnknownViewError(msg)
