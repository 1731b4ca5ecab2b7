"""Sections of a study's page about its parameters: which matter, each by itself, and two together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sonew_autotune.report import figures
from sonew_autotune.report.analysis import Effect, cells, effects, timed
from sonew_autotune.report.document import Charts
from sonew_autotune.report.importance import FEWEST_TRIALS, top_share
from sonew_autotune.report.markup import NOTHING, Html, Row, code, element, folded, gain_cell, number, paragraph, section, table
from sonew_autotune.report.studies import Study, tunables


def importance(study: Study, shares: Mapping[str, float], charts: Charts) -> Html:
    """Which parameters decide."""
    heading = "Which parameters matter"
    count = len(timed(study.records))
    if not shares:
        few = f"There are not enough trials: {count} timed ones, at least {FEWEST_TRIALS} are needed."
        none = "No parameter tells the best trials from the rest."
        return section("importance", heading, paragraph(few if count < FEWEST_TRIALS else none))
    text = (
        f"PED-ANOVA over {count} timed trials: the more differently the best {top_share(count):.0%} are spread over a parameter's values "
        "than all trials, the larger its share."
    )
    says = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    rows: list[Row] = [[code(name), number(f"{share:.1%}", share), tunables(study.kernel).get(name, "")] for name, share in shares.items()]
    numbers = folded(table("Share of each parameter", ["parameter", "share", "meaning"], rows))
    return section("importance", heading, paragraph(text), charts.add(figures.importance(shares), f"Shares: {says}."), numbers)


def _effects_table(name: str, found: Sequence[Effect]) -> Html:
    rows = [
        (
            number(f"{effect.value}"),
            gain_cell(effect.gain),
            gain_cell(effect.best),
            number(f"{effect.timed}"),
            number(f"{effect.failed}"),
        )
        for effect in found
    ]
    return table(f"Gain by value of {name}", ["value", "median gain", "best gain", "timed", "failed"], rows)


def slices(study: Study, charts: Charts) -> Html:
    """Gain over each parameter."""
    heading, trials = "Slices: one parameter at a time", timed(study.records)
    if not trials:
        return section("slices", heading, paragraph(NOTHING))
    parts = []
    for name, values in study.axes:
        found = effects(study.records, name, values)
        if not found:
            continue
        middles = ", ".join(f"{effect.value}: {effect.gain:.2f}x" for effect in found if effect.gain is not None)
        chart = charts.add(figures.slices(name, trials, found), f"Median gain by value of {name}: {middles}.")
        meaning = paragraph(tunables(study.kernel).get(name, ""), muted=True)
        parts.append(element("div", element("h3", code(name)), chart, meaning, folded(_effects_table(name, found))))
    text = "Each dot is a trial, each bar the median of a value, over whatever the other parameters were; the dotted line is the default."
    return section("slices", heading, paragraph(text), element("div", parts, class_="slices"))


def heat_map(study: Study, pair: tuple[str, str] | None, charts: Charts) -> Html:
    """The two parameters that matter most, together."""
    if pair is None or not timed(study.records):
        return section("pairs", "Two parameters together", paragraph("Fewer than two parameters were varied."))
    columns, rows = (dict(study.axes)[name] for name in pair)
    grid = cells(study.records, study.axes, pair)
    text = "The largest gain of each pair of values. Blue is faster than the default, orange slower; empty cells were not tried."
    filled = [
        [
            number(f"{second}"),
            number(f"{first}"),
            gain_cell(cell.gain),
            number(f"{cell.tried}"),
            number(f"{cell.failed}"),
        ]
        for second, line in zip(rows, grid, strict=True)
        for first, cell in zip(columns, line, strict=True)
        if cell.tried
    ]
    gains = [cell.gain for line in grid for cell in line if cell.gain is not None]
    if not gains:
        return section("pairs", "Two parameters together", paragraph(NOTHING))
    says = f"Best gains by {pair[0]} and {pair[1]}, from {min(gains):.2f} to {max(gains):.2f} times the default's pace."
    chart = charts.add(figures.heat_map(pair, columns, rows, grid), says)
    numbers = table(f"Best gain by {pair[1]} and {pair[0]}", [pair[1], pair[0], "best gain", "tried", "failed"], filled)
    return section("pairs", f"{pair[0]} and {pair[1]} together", paragraph(text), chart, folded(numbers))
