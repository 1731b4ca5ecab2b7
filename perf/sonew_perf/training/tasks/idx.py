"""Images in IDX files (the MNIST format): a big-endian header, then one byte per pixel; gzipped or not."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from sonew_perf.errors import DataError

IMAGE_MAGIC: Final = 0x00000803  # unsigned bytes, three dimensions: images, rows, columns
HEADER_BYTES: Final = 16
TRAIN_IMAGES: Final = ("train-images-idx3-ubyte", "train-images.idx3-ubyte")  # both spellings are in circulation
FIX: Final = "Fetch the MNIST training images again, or name the right folder with --data or SONEW_DATA."


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Images, flattened, with the identity that a record quotes.

    Attributes:
        pixels: uint8, (images, rows * columns).
        sha256: of the unpacked file, so that a gzipped and a plain copy are the same data.
    """

    pixels: np.ndarray
    sha256: str


def find_train_images(folder: Path) -> Path:
    """The training image file in a folder.

    Raises:
        DataError: no such folder, or none of the known names in it.
    """
    if not folder.is_dir():
        msg = f"{folder} is not a folder: it must hold {TRAIN_IMAGES[0]}, gzipped or not. {FIX}"
        raise DataError(msg)
    names = [name + suffix for name in TRAIN_IMAGES for suffix in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    found = sorted(path.name for path in folder.iterdir())[:8]
    msg = f"{folder} holds none of {names}; it has {found or 'no files'}. {FIX}"
    raise DataError(msg)


def _unpacked(path: Path) -> bytes:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                return file.read()
        return path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        msg = f"{path} cannot be read: {error}; expected a whole {'gzip' if path.suffix == '.gz' else 'IDX'} file. {FIX}"
        raise DataError(msg) from error


def read_images(path: Path) -> ImageSet:
    """Every image of an IDX file.

    Raises:
        DataError: the file is unreadable, is no image file, is shorter or longer than its header says, or is empty.
    """
    content = _unpacked(path)
    if len(content) < HEADER_BYTES:
        msg = f"{path} has {len(content)} bytes unpacked, expected at least the {HEADER_BYTES} of an IDX header. {FIX}"
        raise DataError(msg)
    magic, *shape = (int(word) for word in np.frombuffer(content, dtype=">u4", count=4))
    if magic != IMAGE_MAGIC:
        msg = f"{path} starts with {magic:#010x}, expected {IMAGE_MAGIC:#010x} (bytes in three dimensions): not an image file. {FIX}"
        raise DataError(msg)
    expected = HEADER_BYTES + math.prod(shape)
    if len(content) != expected or 0 in shape:
        msg = f"{path} has {len(content)} bytes unpacked, expected {expected} for {shape[0]} images of {shape[1]} x {shape[2]}. {FIX}"
        raise DataError(msg)
    pixels = np.frombuffer(content, dtype=np.uint8, offset=HEADER_BYTES).reshape(shape[0], -1)
    return ImageSet(pixels, hashlib.sha256(content).hexdigest())
