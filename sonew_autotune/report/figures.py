"""The charts of a page as plain Plotly figures. A colour is the name of a variable of page.css, so that a chart follows the theme."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sonew_autotune.commands.render import config_text
from sonew_autotune.report.analysis import Cell, Effect, Failed, Timed, running_best
from sonew_autotune.report.decision import WORKLOADS
from sonew_autotune.report.markup import escaped
from sonew_autotune.search.stopping import ROOF
from sonew_autotune.trials.trial import ADAMW, BEST, COPY, DEFAULT

Figure = dict[str, Any]

COLOURS: Final[Mapping[str, str]] = {BEST: "--best", DEFAULT: "--default", ADAMW: "--adamw", COPY: "--copy"}
NAMES: Final[Mapping[str, str]] = {BEST: "challenger", DEFAULT: "default", ADAMW: "fused AdamW", COPY: "copy"}
WIDE: Final = 5.0  # a range of values beyond this factor is shown on a logarithmic axis
JITTER: Final = 0.18  # of a row's height, so that equal times do not hide each other
GAIN: Final = "gain over the default"


def _label(text: str) -> str:
    """Foreign text for Plotly, which reads a few tags and entities but not that of a quotation mark."""
    return escaped(text, quote=False)


def _axis(title: str = "", **more: Any) -> dict[str, Any]:  # noqa: ANN401  # Plotly's own names and values
    line = {"gridcolor": "--grid", "linecolor": "--line", "tickcolor": "--line", "zerolinecolor": "--line", "zeroline": False}
    return {**line, "title": {"text": title, "standoff": 8}, "automargin": True, "tickfont": {"color": "--muted"}, **more}


def _layout(height: int, xaxis: dict[str, Any], yaxis: dict[str, Any], **more: Any) -> dict[str, Any]:  # noqa: ANN401  # as _axis
    return {
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "--ink"},
        "hoverlabel": {"bgcolor": "--card", "bordercolor": "--line", "font": {"color": "--ink"}, "align": "left"},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": xaxis,
        "yaxis": yaxis,
        **more,
    }


def _scale(values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis where the values make one necessary."""
    if values and max(values) > WIDE * min(values):
        return {"type": "log", "minor": {"ticks": "outside", "tickcolor": "--line"}, "dtick": 1 if max(values) > 20 * min(values) else "D2"}
    return {}


def _reach(values: Sequence[float]) -> dict[str, Any]:
    """An axis that shows exactly these values, with some room."""
    low, high, scale = min(values), max(values), _scale(values)
    if scale:
        return {**scale, "range": [math.log10(low) - 0.1, math.log10(high) + 0.1]}
    room = 0.06 * (high - low or high)
    return {"range": [low - room, high + room]}


def _level(value: float) -> dict[str, Any]:
    """A horizontal reference line."""
    line = {"color": "--muted", "width": 1.5, "dash": "dot"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value, "line": line}


def _points(trials: Sequence[Timed], *, name: str, hollow: bool = False, bars: bool = True) -> dict[str, Any]:
    gains = [trial.gain for trial in trials]
    spread = {
        "type": "data",
        "symmetric": False,
        "array": [gain.high - gain.median for gain in gains],
        "arrayminus": [gain.median - gain.low for gain in gains],
        "color": "--best",
        "thickness": 1,
        "width": 0,
    }
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [trial.number for trial in trials],
        "y": [gain.median for gain in gains],
        "marker": {"color": "--best", "size": 8, "symbol": "circle-open" if hollow else "circle"},
        "text": [_label(config_text(trial.record.config)) for trial in trials],
        "hovertemplate": "trial %{x}: %{y:.3f}x<br>%{text}<extra></extra>",
        **({"error_y": spread} if bars else {}),
    }


def history(trials: Sequence[Timed], failures: Sequence[Failed]) -> Figure:
    """Gain of every trial in the order they finished, with the best so far; failures stand at the foot."""
    gains = [trial.gain.median for trial in trials]
    foot = min([*gains, 1.0]) * (0.97 if max(gains, default=1.0) <= WIDE * min(gains, default=1.0) else 0.8)
    data = [_points([trial for trial in trials if not trial.record.pruned], name="timed, with its 95 % interval")]
    if early := [trial for trial in trials if trial.record.pruned]:
        data.append(_points(early, name="given up early", hollow=True))
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best so far",
            "x": [trial.number for trial in trials],
            "y": running_best(trials),
            "line": {"color": "--best", "width": 2, "shape": "hv"},
            "hoverinfo": "skip",
        }
    )
    if failures:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "failed",
                "x": [each.number for each in failures],
                "y": [foot] * len(failures),
                "marker": {"color": "--failed", "size": 9, "symbol": "x"},
                "text": [_label(f"{each.failure.kind}: {config_text(each.record.config)}") for each in failures],
                "hovertemplate": "trial %{x} failed<br>%{text}<extra></extra>",
            }
        )
    numbers = [*(trial.number for trial in trials), *(each.number for each in failures)]
    xaxis = _axis("trial, in the order they finished", range=[0.2, max(numbers, default=1) + 0.8], tickformat="d", showgrid=False)
    yaxis = _axis(GAIN, ticksuffix="x", **_scale([*gains, foot]))
    return {"data": data, "layout": _layout(400, xaxis, yaxis, shapes=[_level(1.0)])}


def strip(samples: Mapping[str, Sequence[float]], names: Mapping[str, str] = NAMES) -> Figure:
    """Every round's time of every workload, a row each, with a bar at its median."""
    shown = [workload for workload in WORKLOADS if workload in samples]
    data: list[dict[str, Any]] = []
    shapes = []
    for row, workload in enumerate(reversed(shown)):
        times = samples[workload]
        middle = statistics.median(times)
        offsets = [row + JITTER * math.sin(2.4 * number) for number in range(len(times))]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": names[workload],
                "x": list(times),
                "y": offsets,
                "marker": {"color": COLOURS[workload], "size": 9, "opacity": 0.75},
                "customdata": list(range(1, len(times) + 1)),
                "hovertemplate": names[workload] + ", round %{customdata}: %{x:.4g} ms<extra></extra>",
            }
        )
        line = {"color": COLOURS[workload], "width": 3}
        shapes.append({"type": "line", "x0": middle, "x1": middle, "y0": row - 0.34, "y1": row + 0.34, "line": line})
    times = [time for workload in shown for time in samples[workload]]
    rows: Figure = {"tickvals": list(range(len(shown))), "ticktext": [names[workload] for workload in reversed(shown)]}
    yaxis = _axis(range=[-0.6, len(shown) - 0.4], showgrid=False, **rows)
    xaxis = _axis("milliseconds per step", **({} if _scale(times) else {"rangemode": "tozero"}), **_scale(times))
    return {"data": data, "layout": _layout(90 + 62 * len(shown), xaxis, yaxis, shapes=shapes, showlegend=False)}


def importance(shares: Mapping[str, float]) -> Figure:
    """Each parameter's share, the largest on top."""
    names = list(shares)[::-1]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [100 * shares[name] for name in names],
        "y": [_label(name) for name in names],
        "text": [f"{shares[name]:.0%}" for name in names],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": "--best"},
        "hovertemplate": "%{y}: %{x:.1f} %<extra></extra>",
    }
    xaxis = _axis("share", ticksuffix=" %", range=[0, 118 * max(shares.values())])
    return {"data": [bars], "layout": _layout(80 + 46 * len(shares), xaxis, _axis(showgrid=False), bargap=0.4)}


def slices(name: str, trials: Sequence[Timed], found: Sequence[Effect]) -> Figure:
    """Gain over the values of one parameter: every trial, and the median of each value."""
    places = {effect.value: place for place, effect in enumerate(found)}
    here = [trial for trial in trials if trial.record.config.get(name) in places]
    dots = _points(here, name="trial", bars=False)
    dots["x"] = [places[trial.record.config[name]] + JITTER * math.sin(2.4 * trial.number) for trial in here]
    dots["marker"] = {"color": "--best", "size": 7, "opacity": 0.75}
    dots["hovertemplate"] = "%{y:.3f}x<br>%{text}<extra></extra>"
    medians = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "median",
        "x": [places[effect.value] for effect in found if effect.gain is not None],
        "y": [effect.gain for effect in found if effect.gain is not None],
        "line": {"color": "--ink", "width": 1.5},
        "marker": {"color": "--ink", "size": 22, "symbol": "line-ew-open", "line": {"width": 3, "color": "--ink"}},
        "hovertemplate": "median %{y:.3f}x<extra></extra>",
    }
    ticks: Figure = {"tickvals": list(places.values()), "ticktext": [str(value) for value in places], "range": [-0.5, len(places) - 0.5]}
    yaxis = _axis("gain", ticksuffix="x", **_reach([1.0, *(trial.gain.median for trial in trials)]))  # the same in every slice
    xaxis = _axis(showgrid=False, tickangle=0, **ticks)
    xaxis["tickfont"] = {"color": "--muted", "size": 11}
    layout = _layout(280, xaxis, yaxis, shapes=[_level(1.0)], showlegend=False)
    return {"data": [dots, medians], "layout": layout}


def heat_map(pair: tuple[str, str], columns: Sequence[int], rows: Sequence[int], found: Sequence[Sequence[Cell]]) -> Figure:
    """The largest gain of each pair of values: warm colours are slower than the default, cool ones faster."""
    gains = [[cell.gain for cell in line] for line in found]
    reach = max([abs(math.log2(gain)) for line in gains for gain in line if gain is not None], default=0.0) or 1.0
    words = [[f"{cell.gain:.2f}x" if cell.gain is not None else "" for cell in line] for line in found]
    cells = {
        "type": "heatmap",
        "x": [str(value) for value in columns],
        "y": [str(value) for value in rows],
        "z": [[math.log2(gain) if gain is not None else None for gain in line] for line in gains],
        "zmin": -reach,
        "zmax": reach,
        "colorscale": [[0, "--slower"], [0.5, "--even"], [1, "--faster"]],
        "showscale": False,
        "text": words,
        "texttemplate": "%{text}",
        "textfont": {"color": "--ink"},
        "hovertemplate": f"{_label(pair[0])}=%{{x}} {_label(pair[1])}=%{{y}}<br>%{{text}}<extra></extra>",
        "xgap": 2,
        "ygap": 2,
    }
    untimed = [
        {"x": column, "y": row, "text": "failed", "showarrow": False, "font": {"color": "--failed"}}
        for row, line in enumerate(found)
        for column, cell in enumerate(line)
        if cell.gain is None and cell.tried
    ]
    xaxis, yaxis = (_axis(_label(name), type="category", showgrid=False) for name in pair)
    return {"data": [cells], "layout": _layout(110 + 52 * len(rows), xaxis, yaxis, annotations=untimed)}


def failures(counts: Mapping[str, int]) -> Figure:
    """How many candidates failed, by kind."""
    kinds = list(counts)[::-1]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [counts[kind] for kind in kinds],
        "y": [_label(kind) for kind in kinds],
        "text": [str(counts[kind]) for kind in kinds],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": "--failed"},
        "hovertemplate": "%{y}: %{x}<extra></extra>",
    }
    most = max(counts.values())
    xaxis = _axis("candidates", range=[0, 1.15 * most], **({"dtick": 1} if most <= 8 else {}))
    return {"data": [bars], "layout": _layout(80 + 46 * len(counts), xaxis, _axis(showgrid=False), bargap=0.4)}


def roof(trials: Sequence[Timed]) -> Figure:
    """Bytes per second of each trial as a share of a copy's in the same rounds."""
    known = [(trial, 100 * trial.record.roof_share) for trial in trials if trial.record.roof_share is not None]
    dots = _points([trial for trial, _ in known], name="trial", bars=False)
    shares = [share for _, share in known]
    dots["y"] = shares
    dots["hovertemplate"] = "trial %{x}: %{y:.0f} % of a copy's pace<br>%{text}<extra></extra>"
    xaxis = _axis("trial", tickformat="d", showgrid=False, range=[0.2, max([trial.number for trial, _ in known], default=1) + 0.8])
    scale = _scale([*shares, 100.0])
    yaxis = _axis("of a copy's bytes per second", ticksuffix=" %", **(scale or {"range": [0, 1.08 * max([*shares, 100.0])]}))
    return {"data": [dots], "layout": _layout(320, xaxis, yaxis, shapes=[_level(100 * ROOF)], showlegend=False)}
