"""What these tests work on: a small folder of images in the MNIST format, and one thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.perf.idx_files import idx_bytes

IMAGES = 40


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Small tensors on one thread: waiting for a busy second core would be most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def pixels() -> np.ndarray:
    """uint8 (40, 28, 28): soft blobs, each at a place of its own, so that there is something to learn."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:28, :28]
    centers = rng.uniform(6, 22, (IMAGES, 2))
    distance = (rows - centers[:, :1, None]) ** 2 + (columns - centers[:, 1:, None]) ** 2
    blobs: np.ndarray = np.round(255 * np.exp(-distance / 20)).astype(np.uint8)
    return blobs


@pytest.fixture
def folder(tmp_path: Path, pixels: np.ndarray) -> Path:
    """A data folder that holds them."""
    data = tmp_path / "images"
    data.mkdir()
    (data / "train-images-idx3-ubyte").write_bytes(idx_bytes(pixels))
    return data
