"""A record's JSON taken apart with checks: whoever wrote it, what comes out has the type, the size and the sign that it should."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from sonew_perf.errors import RecordError

LONGEST_NAME: Final = 300  # characters of what identifies a series
LONGEST_TEXT: Final = 20_000  # of a command, a reason, a label
SHOWN: Final = 40  # of foreign text that a message quotes
SAFE_ID: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}")
COMMIT: Final = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
LARGEST: Final = 2**53  # beyond it a float does not count
NUMBERS: Final = frozenset({int, float})


def shown(value: object) -> str:
    """A foreign value for a message: in one line, cut."""
    text = ascii(value) if isinstance(value, str | int | float | None) else f"a JSON {type(value).__name__}"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def escaped(text: str) -> str:
    """The text with what UTF-8 cannot say escaped: the name of a file may be any bytes."""
    return text.encode("utf-8", "backslashreplace").decode()


def expect_text(what: str, text: str, *, longest: int = LONGEST_TEXT) -> None:
    """Raise RecordError where text that somebody wants to have written could not be read again.

    Args:
        what: the text is, for the message. longest: characters that it may have.
    """
    if len(text) > longest:
        msg = f"the {what} has {len(text)} characters, at most {longest} are kept. Shorten it."
        raise RecordError(msg)
    if text != escaped(text):
        msg = f"the {what} {shown(text)} has bytes that are no UTF-8. Write it anew."
        raise RecordError(msg)


def is_number(value: object) -> bool:
    """Whether JSON's number, finite and countable; `true` is none."""
    return type(value) in NUMBERS and -LARGEST <= value <= LARGEST  # type: ignore[operator]  # NaN is neither


@dataclass(frozen=True, slots=True)
class Fields:
    """One object of a record.

    Every method raises RecordError in one line that names the place, the value and what was expected; null counts as absent.

    Attributes:
        where: the object's place in the record, for messages. values: what it holds.
    """

    where: str
    values: Mapping[str, Any]

    @classmethod
    def of(cls, where: str, value: object) -> Fields:
        """The object, where there is one."""
        if not isinstance(value, dict):
            msg = f"{where} is {shown(value)}, expected an object"
            raise RecordError(msg)
        return cls(where, value)

    def refuse(self, name: str, expected: str) -> NoReturn:
        """Raise the error for a field."""
        value = self.values.get(name)
        msg = f"{self.where}: {name} is {'missing' if value is None else shown(value)}, expected {expected}"
        raise RecordError(msg)

    def inner(self, name: str) -> Fields:
        """An object inside, empty where there is none."""
        value = self.values.get(name)
        return Fields.of(f"{self.where}, {name}", {} if value is None else value)

    def objects(self, name: str) -> list[Fields]:
        """The objects of a list inside, none where there is no list."""
        value = self.values.get(name)
        if not isinstance(value, list | None):
            self.refuse(name, "a list")
        return [Fields.of(f"{self.where}, {name} {number}", item) for number, item in enumerate(value or [], start=1)]

    def text(self, name: str, default: str | None = None, *, longest: int = LONGEST_TEXT) -> str:
        """Any text; where it is shown it is escaped."""
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            self.refuse(name, "text")
        if len(value) > longest:
            msg = f"{self.where}: {name} has {len(value)} characters, expected at most {longest}"
            raise RecordError(msg)
        return value

    def name(self, name: str, default: str | None = None) -> str:
        """Text that identifies something: short, printable, no markup. An empty one counts as absent."""
        value = self.text(name, default, longest=LONGEST_NAME)
        if (not value and default is None) or not value.isprintable() or "<" in value or ">" in value:
            self.refuse(name, "a printable name without < and >")
        return value

    def choice(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        """One of several words."""
        value = self.text(name, default)
        if value not in allowed:
            self.refuse(name, f"one of {list(allowed)}")
        return value

    def number(self, name: str) -> float | None:
        """A number that is not negative."""
        value = self.values.get(name)
        if value is None:
            return None
        if not is_number(value) or value < 0:
            self.refuse(name, "a number that is not negative")
        return float(value)

    def count(self, name: str, default: int | None = None) -> int | None:
        """A whole number that is not negative."""
        value = self.values.get(name)
        if value is None:
            return default
        if not is_number(value) or not isinstance(value, int) or value < 0:
            self.refuse(name, "a whole number that is not negative")
        return value

    def numbers(self, name: str) -> tuple[float, ...]:
        """A list of numbers, none of them negative; empty where there is none."""
        value = self.values.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not NUMBERS.issuperset(map(type, value)) or not all(0 <= item <= LARGEST for item in value):
            self.refuse(name, "a list of numbers that are not negative")
        return tuple(map(float, value))

    def flag(self, name: str) -> bool | None:
        """Yes, no or unknown."""
        value = self.values.get(name)
        if not isinstance(value, bool | None):
            self.refuse(name, "true, false or null")
        return value

    def date(self, name: str, default: str | None = None) -> str:
        """ISO 8601, brought to UTC so that dates sort as text; without a zone it is UTC already. An empty one counts as absent."""
        value = self.text(name, "", longest=LONGEST_NAME) or default
        if value == "":
            return value
        try:
            parsed = datetime.fromisoformat(value or "none")
            parsed = parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
        except (ValueError, OverflowError):
            self.refuse(name, "a date as 2026-11-27T23:55:01+00:00")
        return parsed.isoformat()

    def commit(self, name: str) -> str:
        """Hexadecimal digits of a commit, or nothing."""
        value = self.text(name, "")
        if value in ("", "unknown"):
            return ""
        if COMMIT.fullmatch(value) is None:
            self.refuse(name, "40 hexadecimal digits")
        return value

    def expect_version(self, version: int) -> None:
        """Whether the document is of the version that is read."""
        found = self.values.get("schema_version")
        if found != version or isinstance(found, bool):
            self.refuse("schema_version", str(version))

    def scalars(self) -> dict[str, str | int | float | bool]:
        """Everything in it that is no list and no object: short texts, finite numbers, flags."""
        kept = {name: value for name, value in self.values.items() if isinstance(value, str | bool) or is_number(value)}
        for name, value in kept.items():
            if len(name) > LONGEST_NAME or (isinstance(value, str) and len(value) > LONGEST_TEXT):
                msg = f"{self.where}: {shown(name)} is longer than a record says it"
                raise RecordError(msg)
        return kept
