"""Files in the MNIST format, written by the tests."""

from __future__ import annotations

import struct

import numpy as np


def idx_bytes(pixels: np.ndarray) -> bytes:
    """An IDX file's content for uint8 (images, rows, columns)."""
    return struct.pack(">4I", 0x803, *pixels.shape) + pixels.tobytes()
