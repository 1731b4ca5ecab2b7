"""Plain JSON values: finite numbers of few digits, short histories, foreign values flattened to text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from sonew_perf.dashboard.content import Json
from sonew_perf.records.checks import LARGEST

DIGITS: Final = 5  # that a number keeps: a timing has fewer that mean something
LONGEST: Final = 4000  # characters of one piece of foreign text
T = TypeVar("T")


def number(value: float | None) -> float | None:
    """A finite number of five digits, None for none; whole ones beyond 2**53 are none, since a browser cannot count them."""
    if value is None or (abs(value) > LARGEST if isinstance(value, int) else not math.isfinite(value)):
        return None
    return value if isinstance(value, int) else float(f"{value:.{DIGITS}g}")


def plain(value: object) -> Json:
    """The value with every number finite and short, every key a text, nothing but JSON's types."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    return str(value)


def flat(values: Mapping[str, object]) -> dict[str, str]:
    """Texts by name, for tables of facts: what is nested becomes JSON."""
    return {str(key)[:LONGEST]: text(value) for key, value in values.items() if value is not None and value not in ("", [], {})}


def text(value: object) -> str:
    """One value in words."""
    if isinstance(value, str):
        return value[:LONGEST]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return json.dumps(plain(value), ensure_ascii=False)[:LONGEST]
    return f"{value}" if isinstance(value, int) else f"{value:.{DIGITS}g}"


def evenly(values: Sequence[T], most: int) -> list[T]:
    """At most so many of the values, evenly spaced, first and last among them."""
    return [values[index] for index in even_places(len(values), most)]


def even_places(count: int, most: int) -> list[int]:
    """At most `most` of 0..count-1, evenly spaced, both ends among them."""
    if count <= most:
        return list(range(count))
    return [round(index * (count - 1) / (most - 1)) for index in range(most)] if most > 1 else [count - 1][:most]
