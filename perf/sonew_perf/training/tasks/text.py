"""A text as a task's data: the user's own, or the documentation that comes with Python. No framework is loaded here."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Final

import numpy as np

from sonew.documents import UnreadableFileError, read_regular_file
from sonew_perf.errors import DataError
from sonew_perf.records.checks import LONGEST_NAME
from sonew_perf.training.tasks.data import Data

CONTEXT: Final = 64  # characters that the model sees at once
HELD_OUT: Final = 0.1  # of the text, its end
SHORTEST: Final = round((CONTEXT + 1) / HELD_OUT)  # characters: the held-out part is a window then
LARGEST: Final = 2**26  # bytes of all files
SUFFIXES: Final = (".txt", ".md", ".rst")  # of the files that are read in a folder
MOST_SYMBOLS: Final = 256  # a symbol's number is one byte
RARE: Final = "\N{REPLACEMENT CHARACTER}"  # stands for every symbol beyond the most frequent ones
FIX: Final = "Name a text file or a folder of them with --data; without it it is the documentation that comes with Python."


def _python_documentation() -> str:
    """Its topics in the order of their names. Some passages stand in several: to a model the held-out part is not wholly new."""
    try:
        from pydoc_data.topics import topics  # noqa: PLC0415  # large, and some distributions leave it out
    except ImportError as error:
        msg = f"this Python comes without its documentation: {error}. Name a text file or a folder of them with --data."
        raise DataError(msg) from error
    return "\n\n".join(topics[name] for name in sorted(topics))


def _files_of(path: Path) -> list[Path]:
    """The path itself, or a folder's files in the order of their relative paths, those in its folders too."""
    if not path.is_dir():
        return [path]
    found = sorted((file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()), key=lambda file: file.parts)
    if not found:
        there = sorted(file.name for file in path.iterdir())[:8]
        msg = f"{path} holds no file that ends with {', '.join(SUFFIXES)}; it has {there or 'no files'}. {FIX}"
        raise DataError(msg)
    return found


def _read(path: Path, limit: int) -> bytes:
    try:
        return read_regular_file(path, limit=limit)
    except UnreadableFileError as error:
        why = f"the files have more than {LARGEST} bytes together" if path.is_file() else "it is no regular file"
        msg = f"{path} is not read: {why}. {FIX}"
        raise DataError(msg) from error
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}; expected a text file or a folder of them. {FIX}"
        raise DataError(msg) from error


def _decoded(path: Path, content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{path} is no text in UTF-8: byte {content[error.start]:#04x} at {error.start}. {FIX}"
        raise DataError(msg) from error
    if "\0" in text:
        msg = f"{path} is no text: it has a null character at {text.index(chr(0))}. {FIX}"
        raise DataError(msg)
    return text


def _user_text(path: Path) -> str:
    """The files' texts, one after the other with an empty line between them."""
    texts, left = [], LARGEST
    for file in _files_of(path):
        content = _read(file, left)
        left -= len(content)
        texts.append(_decoded(file, content))
    return "\n\n".join(text for text in texts if text)


def encode(text: str) -> tuple[np.ndarray, str]:
    """A text's symbols by number, uint8 (characters,), and the symbols in the order of their numbers, which is that of their code points.

    Of more than 256 symbols the 255 most frequent are kept, of equally frequent ones those with the lower code points; the others become
    `RARE`.
    """
    points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    symbols, counts = np.unique(points, return_counts=True)
    if len(symbols) > MOST_SYMBOLS:
        kept = symbols[np.argsort(-counts, kind="stable")][: MOST_SYMBOLS - 1]
        points = np.where(np.isin(points, kept), points, ord(RARE))
        symbols = np.unique(points)
    return np.searchsorted(symbols, points).astype(np.uint8), "".join(map(chr, symbols))


def data_of(text: str, name: str) -> Data:
    """A text as a task's data: an example is a window of `CONTEXT` characters and the one after it; the last tenth is held out.

    Raises:
        DataError: the text is too short.
    """
    if len(text) < SHORTEST:
        msg = f"{name}: the text has {len(text)} characters, expected at least {SHORTEST}. {FIX}"
        raise DataError(msg)
    values, symbols = encode(text)
    kept = len(values) - round(HELD_OUT * len(values))
    return Data(
        name=name,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        values=values[:kept],
        held_out=values[kept:],
        examples=(kept - 1) // CONTEXT,
        symbols=symbols,
    )


def _name_of(path: Path) -> str:
    """The file's or folder's, as a record may say it: short and printable, without < and >."""
    name = (path.name or path.resolve().name)[:LONGEST_NAME]
    return "".join(character if character.isprintable() and character not in "<>" else "?" for character in name) or "text"


def load(path: Path | None) -> Data:
    """The text in a file, or in a folder's files; of None the documentation of this Python.

    Raises:
        DataError: no such file, none in the folder, no text, too short, or too large.
    """
    if path is None:
        return data_of(_python_documentation(), f"documentation of Python {platform.python_version()}")
    return data_of(_user_text(path), _name_of(path))
