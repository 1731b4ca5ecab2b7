"""The list of studies as one HTML page, with the gain of each problem and its spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sonew_autotune.measure import Ratio
from sonew_autotune.report.analysis import failed
from sonew_autotune.report.document import whole
from sonew_autotune.report.markup import Cell, Html, Node, element, gain_text, number, table
from sonew_autotune.report.page import badge
from sonew_autotune.report.studies import Study
from sonew_autotune.report.verdict import gain

WIDTH: Final = 200.0  # of an interval's drawing, in its own units
MARGIN: Final = 8.0


@dataclass(frozen=True, slots=True)
class Listed:
    """A study with the file name of its page."""

    study: Study
    page: str


def date_of(study: Study) -> str:
    """When it was decided, or else when its last trial finished; "" where nothing happened."""
    if study.decision is not None and study.decision.date:
        return study.decision.date
    last = max((record.finished for record in study.records), default=0.0)
    return datetime.fromtimestamp(min(last, 4e9), UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if last else ""


def _interval(reached: Ratio, low: float, high: float) -> Html:
    """A gain on a logarithmic scale from `low` to `high` that all rows share; the dashed line is the default."""

    def place(value: float) -> str:
        share = (math.log(value) - math.log(low)) / ((math.log(high) - math.log(low)) or 1.0)
        return f"{MARGIN + share * (WIDTH - 2 * MARGIN):.1f}"

    lines = (
        f'<line class="axis" x1="{place(1.0)}" x2="{place(1.0)}" y1="0" y2="20"/>'
        f'<line class="bar" x1="{place(reached.low)}" x2="{place(reached.high)}" y1="10" y2="10"/>'
        f'<circle class="dot" cx="{place(reached.median)}" cy="10" r="4"/>'
    )
    return Html(f'<svg class="intervals" viewBox="0 0 {WIDTH:g} 20" aria-hidden="true">{lines}</svg>')


def index_page(listed: Sequence[Listed]) -> str:
    """The list, a row per study."""
    gains = [gain(each.study) for each in listed]
    known = [value for reached in gains if reached is not None for value in (reached.low, reached.median, reached.high)]
    low, high = min([1.0, *known]), max([1.0, *known])
    rows: list[list[Node | Cell]] = []
    for each, reached in zip(listed, gains, strict=True):
        study = each.study
        device = f"{study.key.device}, {study.key.capability}" if study.key is not None else "not stated"
        rows.append(
            [
                [element("a", study.title, href=each.page), element("small", study.name)],
                badge(study),
                number(gain_text(reached), reached.median) if reached is not None else number("-"),
                Cell(_interval(reached, low, high), reached.median) if reached is not None else "",
                device,
                number(f"{len(study.records)}" + (f" of {study.space}" if study.space else ""), len(study.records)),
                number(f"{len(failed(study.records))}"),
                Cell(element("span", date_of(study)[:16].replace("T", " "), class_="whole"), date_of(study)),
            ]
        )
    headings = ["problem", "result", "gain (95 %)", f"from {low:.2g}x to {high:.2g}x", "device", "trials", "failed", "date (UTC)"]
    text = "Gain is the default's time over the stored configuration's in the same rounds; before a decision it is the best trial's."
    body = [
        element(
            "header",
            element("p", "sonew-autotune", class_="eyebrow"),
            element("h1", f"{len(listed)} tuning stud{'ies' if len(listed) != 1 else 'y'}"),
            element("p", text, class_="verdict"),
        ),
        element("main", element("section", element("h2", "Studies"), table("A click on a heading sorts", headings, rows, sortable=True))),
        element("footer", "Written by sonew-autotune report. This page holds all it needs and loads nothing from anywhere."),
    ]
    return whole("Tuning studies of the SONew step", body)
