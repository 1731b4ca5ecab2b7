"""A page as a browser's parser sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any, Final

VOID: Final = {"meta", "br", "img", "line", "circle"}


@dataclass
class Node:
    """An element with its attributes, its children and the text that stands directly in it."""

    name: str
    attributes: dict[str, str]
    children: list[Node] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def all(self, name: str, **attributes: str) -> list[Node]:
        """Every element of this name below that has these attributes."""
        return [node for node in self.walk() if node.name == name and attributes.items() <= node.attributes.items()]

    def one(self, name: str, **attributes: str) -> Node:
        found = self.all(name, **attributes)
        assert len(found) == 1, (name, attributes, len(found))
        return found[0]

    def walk(self) -> Iterator[Node]:
        for child in self.children:
            yield child
            yield from child.walk()

    @property
    def text(self) -> str:
        """All text in and below, in order of the elements."""
        return " ".join([*self.words, *(child.text for child in self.children)]).strip()

    def rows(self) -> list[list[str]]:
        """The cells of a table's body."""
        body = self.one("tbody")
        return [[cell.text for cell in row.children] for row in body.children]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Node("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop().name == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.open[-1].words.append(data if self.open[-1].name in {"script", "style"} else data.strip())


def parse(page: str) -> Node:
    """The page; fails where an element is left open or closed twice."""
    parser = _Parser()
    parser.feed(page)
    parser.close()
    assert parser.open == [parser.root]
    return parser.root


def figures(page: Node) -> dict[str, Any]:
    """The charts' data by the name of their places."""
    return {node.attributes["id"]: json.loads("".join(node.words)) for node in page.all("script", type="application/json")}


def palette(css: str) -> tuple[dict[str, str], dict[str, str]]:
    """The colours of the light and of the dark theme."""
    light, dark = css.split("prefers-color-scheme: dark", 1)
    colours = [dict(re.findall(r"(--[a-z-]+): (#[0-9a-f]{6});", part)) for part in (light, dark)]
    return colours[0], colours[1]


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio of two colours."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
