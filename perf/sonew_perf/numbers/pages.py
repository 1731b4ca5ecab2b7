"""The READMEs: which of their marked places are out of date, and writing them anew."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sonew.errors import SonewError
from sonew_autotune.store.files import write_atomically
from sonew_perf.errors import DataError, RecordError
from sonew_perf.numbers.catalog import SOURCES
from sonew_perf.numbers.markers import Marked, fill, find
from sonew_perf.numbers.record import read
from sonew_perf.numbers.source import Source

PATTERNS: Final = ("README.md", "*/README.md", "*/*/README.md", "*/*/*/README.md")


@dataclass(frozen=True, slots=True)
class Stale:
    """A marked place whose text is not what its records say.

    Attributes:
        page: from the checkout's top. line: of its marker. name: of the block. difference: from what stands to what should, a line each.
    """

    page: Path
    line: int
    name: str
    difference: tuple[str, ...]


def checkout() -> Path:
    """The top of the checkout that this module lies in.

    Raises:
        DataError: it is an installed package, which has no READMEs.
    """
    top = Path(__file__).resolve().parents[3]
    if not (top / "perf" / "README.md").is_file():
        msg = f"{top} is no checkout of the project: it has no perf/README.md. Run this from a checkout, installed with `pip install -e`."
        raise DataError(msg)
    return top


def pages(root: Path) -> list[Path]:
    """Every README of the project, from the checkout's top."""
    found = (path.relative_to(root) for pattern in PATTERNS for path in root.glob(pattern))
    return sorted(page for page in found if not page.parts[0].startswith(".") and page.parts[0] != "build")


def _text(root: Path, page: Path, place: Marked, sources: Mapping[str, Source]) -> str:
    source = sources.get(place.name)
    if source is None:
        msg = (
            f"{page}:{place.line}: no block is called {place.name!r}; there are {sorted(sources)}. Add it to sonew_perf/numbers/catalog.py."
        )
        raise DataError(msg)
    records = [read(root, name, root / page) for name in source.records]
    try:
        text = source.write(*records)
    except SonewError:
        raise
    except (ArithmeticError, LookupError, StopIteration, TypeError, ValueError) as error:
        named, found = ", ".join(source.records), f"{type(error).__name__}: {error}"
        msg = (
            f"{page}:{place.line}: block {place.name!r} cannot be written from {named} ({found}). Measure it anew, or quote another record."
        )
        raise RecordError(msg) from error
    if place.inline == text.endswith("\n"):
        msg = f"{page}:{place.line}: {place.name!r} is {'a block' if place.inline else 'part of a sentence'}. Use the other kind of marker."
        raise DataError(msg)
    return text


def _renewed(root: Path, sources: Mapping[str, Source]) -> Iterator[tuple[Path, str, list[tuple[Marked, str]]]]:
    """Each page with its content and the text that each of its marked places should have."""
    for page in pages(root):
        content = (root / page).read_text(encoding="utf-8")
        yield page, content, [(place, _text(root, page, place, sources)) for place in find(content, page.as_posix())]


def _difference(old: str, new: str) -> tuple[str, ...]:
    return tuple(line for line in difflib.ndiff(old.splitlines(), new.splitlines()) if line.startswith(("- ", "+ ")))


def stale(root: Path, sources: Mapping[str, Source] = SOURCES) -> list[Stale]:
    """Every marked place that is out of date.

    Raises:
        DataError: a marker is broken or names nothing. RecordError: a record is missing or lacks what is quoted of it.
    """
    return [
        Stale(page, place.line, place.name, _difference(old, new))
        for page, content, places in _renewed(root, sources)
        for place, new in places
        if (old := content[place.start : place.end]) != new
    ]


def write(root: Path, sources: Mapping[str, Source] = SOURCES) -> list[Path]:
    """Write every page whose marked places are out of date, each whole or not at all; none where something is wrong with any.

    Returns:
        The pages that changed.

    Raises:
        DataError, RecordError: as `stale`.
    """
    changed = []
    for page, content, places in list(_renewed(root, sources)):
        texts = dict(places)
        new = fill(content, [place for place, _ in places], texts.__getitem__)
        if new != content:
            write_atomically(root / page, new)
            changed.append(page)
    return changed
