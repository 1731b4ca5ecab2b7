"""An HTML document that needs nothing but itself: styles and scripts stand in it, and its policy forbids everything else.

Only scripts whose hashes the policy names can run, so that even a mistake in escaping would show text and run nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from sonew_autotune.report.figures import Figure
from sonew_autotune.report.markup import Html, Node, element, render


@cache
def _part(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs  # noqa: PLC0415  # a page without charts goes without

    return str(get_plotlyjs())


def _script(text: str) -> tuple[Html, str]:
    """(an inline script, its source in the policy)."""
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return Html(f"<script>{text}</script>"), f"'sha256-{digest}'"


class Charts:
    """The figures of a page, which names them one by one."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []

    def add(self, figure: Figure, says: str) -> Html:
        """A place for a figure, with what it shows in a sentence for those who cannot see it."""
        self.figures.append(figure)
        name = f"figure-{len(self.figures)}"
        height = f"min-height: {figure['layout']['height']}px"
        chart = element("div", class_="chart", data_figure=name, role="img", aria_label=says, style=height)
        return element("figure", chart, element("noscript", element("p", "The chart needs JavaScript; the table below has its numbers.")))

    def data(self) -> Html:
        """Every figure as data: no browser runs it, and no text in it can end its element."""
        texts = [json.dumps(figure, allow_nan=False).replace("<", "\\u003c") for figure in self.figures]
        return Html(
            "".join(f'<script type="application/json" id="figure-{number}">{text}</script>\n' for number, text in enumerate(texts, 1))
        )


def whole(title: str, body: Sequence[Node], charts: Charts | None = None) -> str:
    """The document.

    Args:
        title: as the browser shows it. body: header, main and footer. charts: those that the body has places for.
    """
    scripts = [_script(_part("page.js"))]
    if charts is not None and charts.figures:
        scripts.insert(0, _script(_plotly()))
    sources = " ".join(source for _, source in scripts)
    policy = f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    head = [
        Html('<meta charset="utf-8">\n'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">\n'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'),
        element("title", title),
        Html(f"\n<style>\n{_part('page.css')}</style>\n"),
    ]
    data = charts.data() if charts is not None else None
    parts = (element("head", head), Html("\n"), element("body", body, Html("\n"), data, [script for script, _ in scripts]))
    return f'<!DOCTYPE html>\n<html lang="en">\n{render(parts)}\n</html>\n'
