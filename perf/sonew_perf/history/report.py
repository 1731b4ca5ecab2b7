"""Histories and regressions as text for a terminal. Names come from record files, which anyone may have written: they are shown escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from rich.console import Group

from sonew_autotune.commands.text import cell, printable
from sonew_perf.history.changes import Change, Level
from sonew_perf.history.regressions import History, Regression
from sonew_perf.records.model import Run
from sonew_perf.tables import plain_table, titled

BLOCKS: Final = "▁▂▃▄▅▆▇█"
WIDEST: Final = 60  # characters of a sparkline
SHORT: Final = 10  # digits of a commit


def sparkline(values: Sequence[float], *, widest: int = WIDEST) -> str:
    """A block per value, from the least to the greatest; medians of groups where there are more values than room."""
    if not values:
        return ""
    groups = np.array_split(np.array(values, dtype=float), min(widest, len(values)))
    heights = np.array([np.median(group) for group in groups])
    low, high = float(heights.min()), float(heights.max())
    if high <= low:
        return BLOCKS[0] * len(heights)
    return "".join(BLOCKS[round((len(BLOCKS) - 1) * (height - low) / (high - low))] for height in heights)


def percent(ratio: float) -> str:
    """A ratio as a change."""
    return f"{100 * (ratio - 1):+.1f} %"


def _run(run: Run | None, name: str) -> str:
    commit = f" ({run.commit[:SHORT]}{', modified' if run.modified else ''})" if run is not None and run.commit else ""
    return f"{name}{commit}"


def _level_line(history: History, level: Level, runs: Mapping[str, Run]) -> str:
    first, last = (runs[history.points[place].run].date[:10] for place in (level.first, level.last))
    count = level.last - level.first + 1
    return f"  {level.level:>10.4g} {history.series.unit}  +-{100 * level.noise:.1f} %  {count} results, {first} to {last}"


def _change_lines(change: Change, runs: Mapping[str, Run]) -> list[str]:
    between = f"{_run(runs.get(change.last_good), change.last_good)} .. {_run(runs.get(change.first_bad), change.first_bad)}"
    return [f"  ---------- {percent(change.ratio)} {change.direction}: {between}"] + ([f"  {change.bisect}"] if change.bisect else [])


def history_lines(history: History, runs: Mapping[str, Run], machine: str) -> list[str]:
    """One series: title, sparkline, levels with a line where they break, threshold; a line alone where there is nothing to judge."""
    series, analysis = history.series, history.analysis
    title = f"{series.title} [{series.id}] on {machine}"
    medians = [point.median for point in history.points if point.median is not None]
    last = f"last {medians[-1]:.4g} {series.unit}" if medians else "no results"
    if not analysis.judged:
        return [printable(f"{title}: {last}; not judged: {analysis.reason}")]
    lines = [title, f"  {sparkline(medians)}  {last}"]
    for place, level in enumerate(analysis.levels):
        lines.append(_level_line(history, level, runs))
        if place < len(analysis.changes):
            lines += _change_lines(analysis.changes[place], runs)
    judged = f"the ratio to {analysis.against} in the same run" if analysis.against else "its own numbers"
    lines.append(f"  judged by {judged}; smallest visible change {100 * analysis.threshold:.1f} %")
    return [*(printable(line) for line in lines), ""]


def history_entry(history: History) -> dict[str, Any]:
    """The same for programs."""
    series = history.series
    numbers = {"runs": [point.run for point in history.points], "medians": [point.median for point in history.points]}
    return {"id": series.id, "title": series.title, **asdict(series), **numbers, **asdict(history.analysis)}


def _settled(regression: Regression) -> str:
    return f"{regression.state}, recovered" if regression.recovered else regression.state


def regressions_table(regressions: Sequence[Regression]) -> Group:
    """The tickets."""
    table = plain_table(["regression", "slower", "ms", "since", "state"])
    for regression in regressions:
        lost = "-" if regression.ms is None else f"{regression.ms:+.3g}"
        state = cell(_settled(regression))
        table.add_row(cell(f"{regression.title}: {regression.id}"), percent(regression.ratio), lost, regression.date[:10], state)
    return titled(f"Regressions: {len(regressions)}", table)


def regression_lines(regression: Regression) -> list[str]:
    """What the table has no room for."""
    against = f", by the ratio to {regression.against}" if regression.against else ""
    lines = [f"{regression.id}: {regression.last_good} .. {regression.first_bad}{against}"]
    if regression.recovered:
        lines.append(f"  recovered in {regression.recovered}")
    if regression.note or regression.author:
        lines.append(f"  {regression.state} since {regression.since[:10]} by {regression.author or 'unknown'}: {regression.note}")
    if regression.bisect and regression.unsettled:
        lines.append(f"  {regression.bisect}")
    return [printable(line) for line in lines]
