"""Marked places of a markdown page, whose text is written by a program.

A block stands between two lines of its own, a number inside a sentence between two comments on one line:

    <!-- numbers: NAME -->
    a table, a paragraph, or both
    <!-- /numbers -->

    It takes <!-- number: NAME -->7 ms<!-- /number --> on that machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sonew_perf.errors import DataError

CODE: Final = re.compile(r"^(```|~~~).*?(?:^\1[^\n]*$|\Z)|`[^`\n]+`", re.MULTILINE | re.DOTALL)
COMMENT: Final = re.compile(r"<!--\s*/?\s*numbers?\b[^\n]*?(?:-->|$)", re.MULTILINE)
OPENING: Final = re.compile(r"<!-- (?P<kind>numbers?): (?P<name>[a-z0-9-]+) -->")
CLOSING: Final = re.compile(r"<!-- /(?P<kind>numbers?) -->")
INLINE: Final = "number"
FORMS: Final = "<!-- numbers: NAME --> with <!-- /numbers -->, or <!-- number: NAME --> with <!-- /number -->; names have a-z, 0-9 and -"


@dataclass(frozen=True, slots=True)
class Marked:
    """A marked place.

    Attributes:
        name: what writes it. line: of its first marker, counted from 1.
        start, end: of the text between the markers, in characters of the page; a block's text ends with its line end.
        inline: whether it is part of a sentence.
    """

    name: str
    line: int
    start: int
    end: int
    inline: bool


def without_code(page: str) -> str:
    """The page with fenced blocks and code spans blanked out, every other character at its place."""
    return CODE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), page)


def _alone(page: str, start: int, end: int) -> bool:
    return page[:start].rpartition("\n")[2] == "" and page[end : end + 1] in {"\n", ""}


def _fit(page: str, opening: re.Match[str], closing: re.Match[str]) -> str | None:
    """What is wrong with where a pair of markers stands."""
    if opening["kind"] == INLINE:
        if "\n" in page[opening.end() : closing.start()]:
            return "must be closed on its line"
        if page[: opening.start()].rpartition("\n")[2].strip() == "":
            return "must not begin a line: markdown would end the paragraph there"
        return None
    alone = all(_alone(page, mark.start(), mark.end()) for mark in (opening, closing))
    return None if alone else "needs lines of its own for both its markers"


def find(page: str, where: str) -> list[Marked]:
    """The marked places, in order.

    Args:
        page: markdown. where: its name, for messages.

    Raises:
        DataError: a marker is misspelt, not closed, not opened, inside another one or at a wrong place. It names page and line.
    """

    def fail(position: int, problem: str) -> DataError:
        return DataError(f"{where}:{page.count(chr(10), 0, position) + 1}: {problem}. Write {FORMS}.")

    found = []
    opening: re.Match[str] | None = None
    for comment in COMMENT.finditer(without_code(page)):
        text, at = comment[0], comment.start()
        opens, closes = OPENING.fullmatch(page, at, comment.end()), CLOSING.fullmatch(page, at, comment.end())
        if opens is None and closes is None:
            raise fail(at, f"{text!r} is not a marker")
        if opens is not None:
            if opening is not None:
                raise fail(opening.start(), f"{opening[0]!r} is not closed before the next marker")
            opening = opens
        elif closes is not None:
            if opening is None or opening["kind"] != closes["kind"]:
                raise fail(at, f"{text!r} closes nothing")
            if problem := _fit(page, opening, closes):
                raise fail(opening.start(), f"{opening[0]!r} {problem}")
            inline = opening["kind"] == INLINE
            line = page.count("\n", 0, opening.start()) + 1
            found.append(Marked(opening["name"], line, opening.end() + (not inline), closes.start(), inline))
            opening = None
    if opening is not None:
        raise fail(opening.start(), f"{opening[0]!r} is not closed")
    return found


def fill(page: str, places: list[Marked], write: Callable[[Marked], str]) -> str:
    """The page with every marked place's text replaced by what `write` says; all else stays as it is."""
    parts, end = [], 0
    for place in places:
        parts += [page[end : place.start], write(place)]
        end = place.end
    return "".join([*parts, page[end:]])
