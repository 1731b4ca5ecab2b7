"""The pages and all they show in one file, thinned until it fits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sonew.errors import SonewError
from sonew_autotune.store.files import write_atomically, writing
from sonew_perf.dashboard.catalogue import Catalogue
from sonew_perf.dashboard.content import Content, Json, Row
from sonew_perf.dashboard.documents import document, names
from sonew_perf.dashboard.page import file_page
from sonew_perf.dashboard.sharing import shared
from sonew_perf.dashboard.views.meta import meta
from sonew_perf.dashboard.views.plain import even_places
from sonew_perf.dashboard.views.series import WITH_SAMPLES

LIMIT_BYTES: Final = 8_000_000
NOTHING_LEFT_OUT: Final = 10**9


class ExportError(SonewError, ValueError):
    """The pages do not fit into the file."""


@dataclass(frozen=True, slots=True)
class Thinning:
    """What a file keeps of each series.

    Attributes:
        runs: newest runs whose samples, facts and commands are kept. samples: of each of them. points: newest runs in the history.
    """

    runs: int
    samples: int
    points: int = NOTHING_LEFT_OUT

    @property
    def rule(self) -> str:
        """In words, for the page."""
        history = "every run of the history" if self.points >= NOTHING_LEFT_OUT else f"the newest {self.points} runs of the history"
        if not self.samples:
            return f"This file leaves out all samples and keeps, of each series, {history}."
        kept = "every sample" if self.samples >= NOTHING_LEFT_OUT else f"at most {self.samples} samples (evenly spaced, with both extremes)"
        return f"This file keeps, of each series, {history}, and {kept} of each of the newest {self.runs} runs."


STEPS: Final = (  # samples first, then the oldest points
    Thinning(WITH_SAMPLES, NOTHING_LEFT_OUT),
    Thinning(WITH_SAMPLES, 40),
    Thinning(10, 40),
    Thinning(5, 20),
    Thinning(2, 0),
    Thinning(2, 0, 300),
    Thinning(2, 0, 100),
    Thinning(2, 0, 40),
)


def export_file(
    path: Path, store: Path, baselines: Path | None, *, limit_bytes: int = LIMIT_BYTES, generated: datetime | None = None
) -> Thinning:
    """Write every page into one HTML file that needs no network.

    Args:
        path: the file, replaced whole or not at all. store, baselines: as for the server.
        limit_bytes: its largest size; samples go first, then the oldest points. generated: the time that it names, now by default.

    Returns:
        What was kept.

    Raises:
        ExportError: it does not fit, however much is left out. WriteError: it cannot be written.
    """
    catalogue = Catalogue(store, baselines)
    try:
        catalogue.analyse_all()
        page, kept = fitting(catalogue.content, limit_bytes, (generated or datetime.now(UTC)).isoformat(timespec="seconds"))
    finally:
        catalogue.close()
    with writing(str(path), otherwise="pass --export with another place"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, page)
    return kept


def fitting(content: Content, limit_bytes: int, generated: str, steps: Sequence[Thinning] = STEPS) -> tuple[str, Thinning]:
    """(the document, what it keeps): the first step that fits.

    Raises:
        ExportError: none does.
    """
    views = {name: document(content, name) for name in names(content)}
    size = 0
    for step in steps:
        thinned = {name: thin(view, step) if name.startswith("series/") else view for name, view in views.items()}
        thinned["meta"] = meta(content, mode="export", generated=generated, rule=step.rule)
        text = json.dumps(shared(thinned), separators=(",", ":"), allow_nan=False)
        page = file_page(text.encode())
        size = len(page.encode())
        if size <= limit_bytes:
            return page, step
    msg = f"The pages need {size} bytes even without samples and old points; {limit_bytes} are allowed. Drop runs first: sonew-perf gc."
    raise ExportError(msg)


def thin(view: Row, step: Thinning) -> Row:
    """One series with only what the step keeps; levels and changes move with the points."""
    points: Mapping[str, Json] = view["points"]
    first = max(0, len(points["run"]) - step.points)
    recent = set(points["run"][-step.runs :])
    samples = {run: spread(values, step.samples) for run, values in view["samples"].items() if run in recent and step.samples}
    return {
        **view,
        "points": {name: _newest(column, first) for name, column in points.items()},
        "levels": [
            {**level, "first": max(0, level["first"] - first), "last": level["last"] - first}
            for level in view["levels"]
            if level["last"] >= first
        ],
        "changes": [{**change, "index": change["index"] - first} for change in view["changes"] if change["index"] >= first],
        "samples": samples,
        "facts": {run: facts for run, facts in view["facts"].items() if run in recent},
        "repro": {run: command for run, command in view["repro"].items() if run in recent},
    }


def _newest(column: Json, first: int) -> Json:
    return {peer: values[first:] for peer, values in column.items()} if isinstance(column, dict) else column[first:]


def spread(values: Sequence[float], most: int) -> list[float]:
    """At most so many samples in their order: evenly spaced ones, the smallest and the largest."""
    if len(values) <= most:
        return list(values)
    extremes = {values.index(min(values)), values.index(max(values))}
    places = extremes | set(even_places(len(values), max(0, most - len(extremes))))
    return [values[place] for place in sorted(places)]
