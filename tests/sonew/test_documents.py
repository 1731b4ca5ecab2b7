"""Files from anywhere: read only when regular, bounded and plain JSON; never waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sonew.documents import DEEPEST, LARGEST_FILE, DocumentError, UnreadableFileError, parse_json, read_regular_file, too_deep
from sonew.tuned import read_store


def nested(levels: int) -> list[object]:
    value: list[object] = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize("strict", [False, True])
def test_plain_json_is_taken_as_it_is(strict: bool) -> None:
    text = '{"a": [1, 2.5, -1e-300, "\\u00e9", null, true], "b": {"c": {}}}'
    assert parse_json(text.encode(), strict=strict) == {"a": [1, 2.5, -1e-300, "é", None, True], "b": {"c": {}}}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\xfe{}", "utf-8"),
        (b"{", "Expecting"),
        (b"[1] 2", "Extra data"),
        (b"[" * 200_000, "nested in more than"),
        (b'{"a":' * (DEEPEST + 1) + b"1" + b"}" * (DEEPEST + 1), "nested in more than"),
        (b"[" + b"9" * 5000 + b"]", "4300"),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_what_is_no_json_is_refused(data: bytes, words: str, strict: bool) -> None:
    with pytest.raises(DocumentError, match=words):
        parse_json(data, strict=strict)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[NaN]", "NaN is no JSON number"),
        (b"[-Infinity]", "-Infinity is no JSON number"),
        (b"[1e999]", "1e999 is beyond the range of a float"),
        (b'{"a": 1, "b": 2, "a": 3}', "the name 'a' twice"),
        (b'{"a": [1, "x\\ud800"]}', r"'\\ud800', half of a character"),
        (b'{"\\uDFff": 1}', r"'\\udfff', half of a character"),
        (b'["\\ude00\\ud83d"]', "half of a character"),
    ],
)
def test_what_only_python_takes_is_refused_where_it_must_be_exact(data: bytes, words: str) -> None:
    parse_json(data)
    with pytest.raises(DocumentError, match=words):
        parse_json(data, strict=True)


def test_characters_that_json_writes_as_pairs_are_taken_and_a_backslash_is_none() -> None:
    assert parse_json(b'["\\ud83d\\uDE00", "\\\\ud800", "\xf0\x9f\x98\x80"]', strict=True) == [
        "\N{GRINNING FACE}",
        "\\ud800",
        "\N{GRINNING FACE}",
    ]


def test_depth_is_counted_in_levels() -> None:
    assert [too_deep(nested(levels), deepest=3) for levels in (1, 3, 4)] == [False, False, True]
    assert not too_deep("no list")
    assert parse_json(b"[" * DEEPEST + b"]" * DEEPEST) == nested(DEEPEST)


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path: Path) -> None:
    path, large = tmp_path / "file", tmp_path / "large"
    path.write_bytes(b"12345")
    assert read_regular_file(path, limit=5) == b"12345"
    with pytest.raises(UnreadableFileError, match="has 5 bytes, more than the 4"):
        read_regular_file(path, limit=4)
    with large.open("wb") as handle:
        handle.truncate(LARGEST_FILE + 1)
    with pytest.raises(UnreadableFileError, match="bytes, more than"):
        read_regular_file(large)


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "link to a device"])
def test_pipes_devices_and_folders_are_refused_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    if kind == "folder":
        path.mkdir()
    if kind == "device":
        path = Path("/dev/zero")
    if kind == "link to a device":
        path.symlink_to("/dev/zero")
    with pytest.raises(UnreadableFileError, match="is no regular file"):
        read_regular_file(path)
    store = read_store("user store", path)
    assert store.entries == ()
    assert "is no regular file" in store.problems[0]
