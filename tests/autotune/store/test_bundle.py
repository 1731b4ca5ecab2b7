"""Bundles: what is written is read back, and nothing else is."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonew.documents import LARGEST_FILE, UnreadableFileError
from sonew.errors import InvalidConfigError
from sonew_autotune.store.bundle import FIELDS, BundleError, digest, make_bundle, read_bundle, write_bundle
from tests.autotune.entries import sound_entry, static_entry

ENTRIES = (sound_entry(), sound_entry(band=2, device="Zhaoxin 兆芯"), static_entry())


def test_a_bundle_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "bundle.json"
    document = write_bundle(path, ENTRIES)
    assert tuple(json.loads(path.read_text())) == FIELDS
    assert json.loads(path.read_text()) == document
    bundle = read_bundle(path)
    assert bundle.entries == ENTRIES
    assert (bundle.sha256, bundle.date) == (document["sha256"], document["date"])
    assert {"python", "sonew", "torch"} <= set(document["made_by"])
    assert set(document["machine"]) == {"system", "machine", "cpu"}
    assert list(tmp_path.iterdir()) == [path]


def test_the_digest_is_of_the_content_and_not_of_its_layout(tmp_path: Path) -> None:
    path = tmp_path / "bundle.json"
    write_bundle(path, ENTRIES)
    before = read_bundle(path)
    document = json.loads(path.read_text())
    document["entries"] = [dict(reversed(raw.items())) for raw in document["entries"]]
    path.write_text(json.dumps(dict(reversed(document.items())), indent=4))
    assert read_bundle(path) == before
    assert digest([{"b": 1, "a": [2.5]}]) == hashlib.sha256(b'[{"a":[2.5],"b":1}]').hexdigest()


def test_nothing_that_exists_is_overwritten_unless_asked(tmp_path: Path) -> None:
    path, folder, pipe, link = (tmp_path / name for name in ("notes.txt", "folder", "pipe", "link"))
    path.write_text("mine")
    folder.mkdir()
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "elsewhere")
    for taken in (path, folder, pipe, link):
        with pytest.raises(InvalidConfigError, match=r"exists.*nothing was written"):
            write_bundle(taken, ENTRIES)
    for taken in (folder, pipe, link, Path("/dev/null")):
        with pytest.raises(InvalidConfigError, match="no regular file"):
            write_bundle(taken, ENTRIES, overwrite=True)
    assert path.read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()
    write_bundle(path, ENTRIES, overwrite=True)
    assert read_bundle(path).entries == ENTRIES


def _planted(tmp_path: Path, change: dict[str, Any]) -> Path:
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps({**make_bundle(ENTRIES), **change}))
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 2}, "has schema_version 2, this version reads 1"),
        ({"schema_version": True}, "has schema_version True"),
        ({"kind": "store"}, "is not a bundle"),
        ({"entries": {}}, "with a list of entries"),
        ({"extra": 1}, "has the fields"),
        ({"date": ""}, "has the date '', expected one such as"),
        ({"date": ["2026"]}, "has the date ['2026']"),
        ({"sha256": "0" * 64}, "is damaged or was edited"),
        ({"sha256": None}, "is damaged or was edited"),
        ({"sha256": ["x" * 10**6]}, "is damaged or was edited"),
        ({"entries": [7]}, "entry 0: entry is 7, expected dict"),
        ({"entries": [sound_entry(total_log2=17).as_json()]}, "is damaged or was edited"),
        ({"entries": [{**sound_entry().as_json(), "path": "../x"}]}, "an entry with unknown fields"),
        ({"entries": [{**sound_entry().as_json(), "kind": ["measured"]}]}, "kind is"),
        ({"entries": [{**sound_entry().as_json(), "config": {"block": "1024"}}]}, "config.block is '1024', expected int"),
    ],
)
def test_anything_else_is_refused_with_the_reason(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError, match="nothing was imported") as caught:
        read_bundle(_planted(tmp_path, change))
    assert words in str(caught.value)
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not readable as JSON"),
        (b"\xff\xfe\x00", "not readable as JSON"),
        (b"[" * 100_000, "nested in more than 32 levels"),
        (b"PK\x03\x04", "not readable as JSON"),
        (b'{"kind": "sonew-autotune bundle", "kind": "x"}', "the name 'kind' twice"),
        (b'{"kind": "sonew-autotune bundle", "date": NaN}', "NaN is no JSON number"),
        (b'{"kind": "sonew-autotune bundle", "date": 1e999}', "beyond the range"),
        (b'{"kind": ' + b"9" * 5000 + b"}", "4300"),
        (b'{"schema_version": 1, "entries": []}', "is not a bundle"),
        (b"null", "is not a bundle"),
    ],
)
def test_any_other_file_is_refused_with_the_reason(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "bundle.json"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="nothing was imported") as caught:
        read_bundle(path)
    assert words in str(caught.value)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    large, pipe, link = tmp_path / "large", tmp_path / "pipe", tmp_path / "link"
    with large.open("wb") as handle:
        handle.truncate(200 * 10**6)  # takes no room
    os.mkfifo(pipe)
    link.symlink_to("/dev/zero")
    for path, words in (
        (large, f"more than the {LARGEST_FILE}"),
        (pipe, "no regular file"),
        (link, "no regular file"),
        (tmp_path, "no regular"),
    ):
        with pytest.raises(UnreadableFileError, match=words):
            read_bundle(path)
    with pytest.raises(BundleError, match="cannot be read"):
        read_bundle(tmp_path / "absent")


@given(place=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_no_damaged_byte_gets_through(tmp_path_factory: pytest.TempPathFactory, place: int, byte: int) -> None:
    """A byte changed anywhere gives the same entries, where it was layout or the head's, or a refusal."""
    data = bytearray(json.dumps(make_bundle(ENTRIES)).encode())
    data[place % len(data)] = byte
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    path.write_bytes(bytes(data))
    try:
        entries = read_bundle(path).entries
    except BundleError:
        return
    assert entries == ENTRIES
