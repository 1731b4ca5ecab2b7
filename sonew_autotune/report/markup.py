"""HTML from plain values: what is no `Html` is escaped, so that foreign text is shown and never takes part."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sonew_autotune.commands.text import printable
from sonew_autotune.measure import Ratio

LONGEST: Final = 4000  # characters of one piece of foreign text
NOTHING: Final = "No candidate was timed, so there is nothing to draw."


@dataclass(frozen=True, slots=True)
class Html:
    """Markup that is put in as it stands."""

    text: str


Node = Html | str | int | None | Iterable["Node"]


def escaped(text: str, *, quote: bool = True) -> str:
    """Text without meaning to a browser, without control characters and writing directions, cut where it is endless."""
    lines = text[:LONGEST].split("\n")
    return html.escape("\n".join(printable(line) for line in lines) + ("..." if len(text) > LONGEST else ""), quote=quote)


def render(node: Node) -> str:
    """The markup of a node and its children; None is nothing."""
    if node is None:
        return ""
    if isinstance(node, Html):
        return node.text
    if isinstance(node, str | int):
        return escaped(str(node))
    return "".join(render(child) for child in node)


def element(name: str, *children: Node, **attributes: str | int | bool | None) -> Html:
    """An element. In an attribute's name "_" stands for "-", a trailing one avoids Python's words; True is a bare attribute."""
    shown = []
    for key, value in attributes.items():
        word = key.rstrip("_").replace("_", "-")
        if value is True:
            shown.append(f" {word}")
        elif value is not None and value is not False:
            shown.append(f' {word}="{escaped(str(value))}"')
    return Html(f"<{name}{''.join(shown)}>{render(children)}</{name}>")


@dataclass(frozen=True, slots=True)
class Cell:
    """A table's cell that sorts by another value than it shows, or is a number."""

    text: Node
    order: float | str | None = None
    number: bool = False


Row = Sequence[Node | Cell]


def number(text: str, order: float | None = None) -> Cell:
    """A cell with a number, aligned right; without an order it sorts last."""
    return Cell(text, order, number=True)


def table(caption: str, headings: Sequence[str], rows: Iterable[Row], *, sortable: bool = False) -> Html:
    """A table with a caption, the first cell of each row its heading; wider than the page, it scrolls by itself."""
    lines = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    right = [any(line[column].number for line in lines) for column in range(len(headings))]
    head = [
        element("th", heading, scope="col", class_="number" if aligned else None) for heading, aligned in zip(headings, right, strict=True)
    ]
    body = [element("tr", [_cell(cell, heading=index == 0) for index, cell in enumerate(line)]) for line in lines]
    content = element("caption", caption), element("thead", element("tr", head)), element("tbody", body)
    inner = element("table", content, class_="sortable" if sortable else None)
    return element("div", inner, class_="scroll", tabindex=0, role="region", aria_label=caption)


def _cell(cell: Cell, *, heading: bool) -> Html:
    order = None if cell.order is None else str(cell.order)
    name, scope = ("th", "row") if heading else ("td", None)
    return element(name, cell.text, scope=scope, class_="number" if cell.number else None, data_order=order)


def gain_text(ratio: Ratio) -> str:
    """A gain with its interval."""
    return f"{ratio.median:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})"


def ms_text(value: float) -> str:
    """Milliseconds to four digits, without the unit."""
    return f"{value:.4g}" if value < 10000 else f"{value:.0f}"


def section(anchor: str, heading: str, *content: Node) -> Html:
    """A part of the page."""
    return element("section", element("h2", heading, id=f"{anchor}-heading"), content, id=anchor, aria_labelledby=f"{anchor}-heading")


def paragraph(*content: Node, muted: bool = False) -> Html:
    """A paragraph."""
    return element("p", content, class_="muted" if muted else None)


def folded(numbers: Node, summary: str = "Numbers as a table") -> Html:
    """What opens on demand."""
    return element("details", element("summary", summary), numbers)


def code(text: str) -> Html:
    """A name or a configuration."""
    return element("code", text)


def gain_cell(gain: float | None) -> Cell:
    """A cell with a gain, None where nothing was timed."""
    return number("-") if gain is None else number(f"{gain:.3f}x", gain)
