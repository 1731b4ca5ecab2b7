"""Text of unknown origin, made fit for a terminal: stored entries may come from anyone."""

from __future__ import annotations

from typing import Final

from rich.text import Text

LONGEST_CELL: Final = 200  # characters


def printable(text: str, *, longest: int | None = None) -> str:
    """The text with everything unprintable escaped (escape sequences, line ends, lone surrogates, reversed writing), cut at `longest`."""
    cut = text if longest is None or len(text) <= longest else f"{text[:longest]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


def cell(text: str) -> Text:
    """A table's cell that shows the text as it is: no markup, no escape sequences, no novel."""
    return Text(printable(text, longest=LONGEST_CELL))
