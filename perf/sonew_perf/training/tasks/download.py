"""MNIST's training images from a public mirror into the user's cache, checked by their SHA-256."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import os
import secrets
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sonew.documents import UnreadableFileError, read_regular_file
from sonew.paths import cache_dir
from sonew_perf.errors import DataError

Told = Callable[[int, int | None], None]
"""Hears of the bytes that came so far, and of how many there are if the mirror says."""

MIRRORS: Final = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
LARGEST: Final = 2**24  # bytes that are accepted of a mirror; the published file has 9,912,422
AT_ONCE: Final = 2**18  # bytes
PATIENCE: Final = 30.0  # seconds without a byte


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A gzipped file as it was published.

    Attributes:
        name: of the file. size: bytes unpacked. sha256: unpacked, so that a mirror may pack it anew.
    """

    name: str
    size: int
    sha256: str


TRAIN_IMAGES: Final = Published(
    name="train-images-idx3-ubyte.gz", size=47_040_016, sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
)


def _difference(content: bytes, published: Published) -> str:
    """Why the content is not the published file; "" if it is."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            unpacked = file.read(published.size + 1)  # never more, whatever it would grow to
    except (OSError, EOFError, zlib.error) as error:
        return f"{len(content)} bytes that are no whole gzip file: {error}"
    if len(unpacked) != published.size:
        had = f"more than {published.size}" if len(unpacked) > published.size else str(len(unpacked))
        return f"{had} bytes unpacked, expected {published.size}"
    found = hashlib.sha256(unpacked).hexdigest()
    return "" if found == published.sha256 else f"SHA-256 {found} unpacked, expected {published.sha256}"


def _is_there(path: Path, published: Published) -> bool:
    """Whether the file is in the cache and whole."""
    try:
        return not _difference(read_regular_file(path, limit=LARGEST), published)
    except (OSError, UnreadableFileError):
        return False


def _received(url: str, told: Told, patience: float) -> bytes:
    """What a mirror sends.

    Raises:
        ValueError: more than is accepted, or no address. OSError, http.client.HTTPException: the mirror cannot be reached, or says no.
    """
    content = bytearray()
    with urllib.request.urlopen(url, timeout=patience) as response:  # noqa: S310  # the caller's mirrors; what comes is checked
        said = response.headers.get("Content-Length") or ""
        while part := response.read(AT_ONCE):
            content += part
            if len(content) > LARGEST:
                msg = f"it sends more than the {LARGEST} bytes that are accepted"
                raise ValueError(msg)
            told(len(content), int(said) if said.isdecimal() else None)
    return bytes(content)


def _write(path: Path, content: bytes) -> None:
    """Into place at once: a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _from_mirrors(published: Published, mirrors: Sequence[str], told: Told, patience: float) -> bytes:
    """What the first mirror sends that has the published file.

    Raises:
        DataError: none has; names each address with its reason.
    """
    failures = []
    for mirror in mirrors:
        url = mirror + published.name
        try:
            content = _received(url, told, patience)
        except (OSError, ValueError, http.client.HTTPException) as error:
            failures.append(f"{url}: {str(error).strip('<>') or type(error).__name__}")
            continue
        difference = _difference(content, published)
        if not difference:
            return content
        failures.append(f"{url}: it sent another file: {difference}")
    msg = f"{published.name} could not be fetched. {'; '.join(failures)}. Fetch it in another way and name its folder: --data FOLDER."
    raise DataError(msg)


def fetch(published: Published, mirrors: Sequence[str], folder: Path, *, told: Told, patience: float = PATIENCE) -> None:
    """Have the published file in the folder: from the first mirror that sends it, unless it is there already. A wrong file is removed.

    Raises:
        DataError: no mirror sent it, or the folder cannot be written.
    """
    path = folder / published.name
    if _is_there(path, published):
        return
    try:
        path.unlink(missing_ok=True)
        _write(path, _from_mirrors(published, mirrors, told, patience))
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror}. Set SONEW_CACHE_DIR to one that can be, or name the images' folder with --data."
        raise DataError(msg) from error


def fetch_mnist(mirrors: Sequence[str] = MIRRORS, folder: Path | None = None, told: Told = lambda _received, _total: None) -> Path:
    """The folder that holds MNIST's training images, fetched if they are not there whole.

    Args:
        mirrors: addresses that end with a slash, tried in order. folder: default: `mnist` in the user's cache.
        told: hears of the bytes that came so far, and of how many there are (None: the mirror does not say).

    Raises:
        DataError: no mirror sent the published file, or the folder cannot be written; names each address with its reason.
    """
    where = cache_dir() / "mnist" if folder is None else folder
    fetch(TRAIN_IMAGES, mirrors, where, told=told)
    return where
