from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sonew_perf.errors import RecordError
from sonew_perf.records.files import Entry, adding, document, read_entries, write_entries, write_text

ENTRIES: list[Entry] = [{"case": "a", "samples_ms": [1.25, 1e-7]}, {"case": "b", "loss": None}]


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "record.json"
    assert read_entries(path) == []
    write_entries(path, ENTRIES)
    assert read_entries(path) == ENTRIES
    assert json.loads(path.read_text()) == {"schema_version": 1, "entries": ENTRIES}
    write_entries(path, ENTRIES[:1])
    assert read_entries(path) == ENTRIES[:1]


@pytest.mark.parametrize("entries", [[], ENTRIES])
def test_the_printed_document_is_the_file(tmp_path: Path, entries: list[Entry]) -> None:
    write_entries(tmp_path / "record.json", entries)
    assert (tmp_path / "record.json").read_text() == document(entries)


def test_a_write_that_fails_leaves_the_old_record_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    write_entries(path, ENTRIES)

    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(RecordError, match=r"record\.json cannot be written: .*No space left.*--output"):
        write_entries(path, [])
    assert read_entries(path) == ENTRIES
    assert list(tmp_path.iterdir()) == [path]


def test_a_text_is_written_into_a_new_folder_and_an_error_says_the_callers_fix(tmp_path: Path) -> None:
    path = write_text(tmp_path / "new" / "text", "a\n", fix="Do this.")
    assert path.read_text() == "a\n"
    with pytest.raises(RecordError, match=r"text/below cannot be written: .* Do this\.$"):
        write_text(path / "below", "b", fix="Do this.")


def test_a_number_json_cannot_say_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_entries(path, ENTRIES)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_entries(path, [{"loss": float("nan")}])
    assert read_entries(path) == ENTRIES


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"schema_version": 1, "entries": [{"ca', "not readable as JSON"),
        ("", "not readable as JSON"),
        ("[]", "schema_version None, expected 1"),
        ('{"schema_version": 2, "entries": []}', "schema_version 2, expected 1"),
        ('{"schema_version": 1}', "no list of entries"),
        ('{"schema_version": 1, "entries": [3]}', "no list of entries"),
    ],
)
def test_what_is_no_record_is_named_and_never_overwritten_blindly(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(content)
    with pytest.raises(RecordError, match=rf"record\.json .*{said}.*Move it away or pass another --output"):
        read_entries(path)


def test_commands_that_add_to_one_record_lose_nothing(tmp_path: Path) -> None:
    """Each reads what is there and writes it again with one more."""
    path = tmp_path / "record.json"

    def add(number: int) -> None:
        with adding(path) as others:
            write_entries(path, [*others, {"number": number}])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert sorted(entry["number"] for entry in read_entries(path)) == list(range(40))


def test_a_record_that_cannot_be_locked_is_named(tmp_path: Path) -> None:
    (tmp_path / "record.json.lock").mkdir()
    with pytest.raises(RecordError, match=r"cannot be written: .* Pass a writable --output"), adding(tmp_path / "record.json"):
        pass
