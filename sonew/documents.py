"""JSON files from anywhere, read without trust: only regular files of a bounded size, nested to a bounded depth."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any, Final

from sonew.errors import InvalidConfigError

LARGEST_FILE: Final = 2**26  # bytes: tens of thousands of entries
DEEPEST: Final = 32  # levels of lists and objects; an entry has about eight
SHOWN: Final = 40  # characters of foreign text that a message quotes
SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")  # how JSON writes half of a character


class UnreadableFileError(InvalidConfigError):
    """The path leads to something that must not be read: no regular file, or one that is too large."""


class DocumentError(InvalidConfigError):
    """The bytes are no acceptable JSON; the message says why."""


def read_regular_file(path: Path, *, limit: int = LARGEST_FILE) -> bytes:
    """Content of a regular file of at most `limit` bytes. Pipes and devices are refused and not waited for.

    Raises:
        UnreadableFileError: no regular file, or a larger one.
        OSError: it cannot be opened or read; FileNotFoundError where there is none.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            msg = f"{path} is no regular file. Pass the path of a file."
            raise UnreadableFileError(msg)
        with os.fdopen(descriptor, "rb", closefd=False) as handle:
            data = handle.read(limit + 1) if status.st_size <= limit else b""
    finally:
        os.close(descriptor)
    if max(status.st_size, len(data)) > limit:
        msg = (
            f"{path} has {max(status.st_size, len(data))} bytes, more than the {limit} that are read. It cannot be what this program wrote."
        )
        raise UnreadableFileError(msg)
    return data


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        msg = f"the number {text[:SHOWN]} is beyond the range of a float"
        raise ValueError(msg)
    return value


def _refuse(name: str) -> None:
    msg = f"{name} is no JSON number"
    raise ValueError(msg)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        msg = f"an object has the name {twice[:SHOWN]!r} twice"
        raise ValueError(msg)
    return made


def too_deep(value: object, *, deepest: int = DEEPEST) -> bool:
    """Whether lists and objects are nested in more than `deepest` levels."""
    level = [value]
    for _ in range(deepest):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _refuse_halves(value: object) -> None:
    """Raise DocumentError where a text, or an object's name, has half of a character: nothing can print or store that."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        msg = f"a text has {error.object[error.start]!a}, half of a character"
        raise DocumentError(msg) from error


def parse_json(data: bytes, *, strict: bool = False, halves: bool = False) -> Any:  # noqa: ANN401  # whatever the file holds
    """The value that UTF-8 encoded JSON stands for.

    Args:
        data: the text. strict: refuse what Python's parser takes beyond JSON: NaN, infinities, a name twice in one object,
            text that UTF-8 cannot say (half of a surrogate pair).
        halves: let such text pass all the same, for a reader that judges each entry by itself.

    Raises:
        DocumentError: not UTF-8, not JSON, nested too deeply, or refused as `strict` says.
    """
    try:
        text = data.decode("utf-8")
        value = json.loads(text, parse_float=_finite, parse_constant=_refuse, object_pairs_hook=_unique) if strict else json.loads(text)
    except RecursionError as error:
        msg = f"nested in more than {DEEPEST} levels"
        raise DocumentError(msg) from error
    except ValueError as error:
        raise DocumentError(str(error)) from error
    if too_deep(value):
        msg = f"nested in more than {DEEPEST} levels"
        raise DocumentError(msg)
    if strict and not halves and SURROGATE.search(data):
        _refuse_halves(value)
    return value
