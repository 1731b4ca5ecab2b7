from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from sonew_perf.errors import DataError
from sonew_perf.training.tasks.idx import find_train_images, read_images
from tests.perf.idx_files import idx_bytes


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-images.idx3-ubyte"])
@pytest.mark.parametrize("packed", [False, True])
def test_images_are_read_plain_or_packed_under_either_name(tmp_path: Path, pixels: np.ndarray, name: str, packed: bool) -> None:
    content = idx_bytes(pixels)
    path = tmp_path / (name + ".gz" if packed else name)
    path.write_bytes(gzip.compress(content) if packed else content)
    assert find_train_images(tmp_path) == path
    images = read_images(path)
    np.testing.assert_array_equal(images.pixels, pixels.reshape(len(pixels), 784))
    plain = tmp_path / "plain"
    plain.write_bytes(content)
    assert images.sha256 == read_images(plain).sha256


def test_other_pixels_have_another_identity(tmp_path: Path, pixels: np.ndarray) -> None:
    (tmp_path / "a").write_bytes(idx_bytes(pixels))
    (tmp_path / "b").write_bytes(idx_bytes(pixels[::-1]))
    assert read_images(tmp_path / "a").sha256 != read_images(tmp_path / "b").sha256


def _broken(content: bytes, kind: str) -> tuple[str, bytes]:
    """(file suffix, content) of a damaged copy."""
    packed = gzip.compress(content)
    return {
        "truncated": ("", content[:-1]),
        "too long": ("", content + b"\0"),
        "labels": ("", struct.pack(">2I", 0x801, 10) + bytes(10)),
        "no header": ("", content[:7]),
        "empty": ("", b""),
        "no images": ("", struct.pack(">4I", 0x803, 0, 28, 28)),
        "gzip cut": (".gz", packed[: len(packed) // 2]),
        "gzip flipped": (".gz", packed[:40] + bytes(byte ^ 255 for byte in packed[40:60]) + packed[60:]),
        "not gzip": (".gz", content),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("truncated", r"31375 bytes unpacked, expected 31376 for 40 images of 28 x 28"),
        ("too long", r"31377 bytes unpacked, expected 31376"),
        ("labels", r"starts with 0x00000801, expected 0x00000803"),
        ("no header", r"7 bytes unpacked, expected at least the 16"),
        ("empty", r"0 bytes unpacked, expected at least the 16"),
        ("no images", r"expected 16 for 0 images"),
        ("gzip cut", r"cannot be read: .*; expected a whole gzip file"),
        ("gzip flipped", r"cannot be read: .*; expected a whole gzip file"),
        ("not gzip", r"cannot be read: .*; expected a whole gzip file"),
    ],
)
def test_a_damaged_file_is_named_with_what_was_expected_and_the_fix(tmp_path: Path, pixels: np.ndarray, kind: str, said: str) -> None:
    suffix, content = _broken(idx_bytes(pixels), kind)
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_images(path)
    assert str(path) in str(caught.value)
    assert "--data or SONEW_DATA" in str(caught.value)


def test_a_missing_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is not a folder.*--data or SONEW_DATA"):
        find_train_images(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match=r"holds none of .*train-images-idx3-ubyte\.gz.*it has \['notes\.txt'\]"):
        find_train_images(tmp_path)
