"""Writing the store: nothing lost, nothing half-written, nothing dropped in silence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sonew.errors import InvalidConfigError
from sonew.tuned import read_store
from sonew_autotune.store import winners
from tests.autotune.entries import KEY, entry


def _nothing(line: str) -> None:
    pytest.fail(f"unexpected warning: {line}")


def test_an_entry_is_read_back_and_replaced_by_key_and_kind(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "tuned.json"
    winners.save(path, entry({"segment": 4096}), warn=_nothing)
    winners.save(path, entry({"segment": 65536}, band=2), warn=_nothing)
    winners.save(path, entry({"segment": 16384}), warn=_nothing)
    read = read_store("user store", path)
    assert read.problems == ()
    assert {found.key.band: found.config.as_dict() for found in read.entries} == {1: {"segment": 16384}, 2: {"segment": 65536}}
    assert winners.find(path, KEY) == entry({"segment": 16384})
    assert winners.find(path, entry(band=3).key) is None
    assert winners.find(path, KEY, kind="static") is None


def test_entries_of_others_are_kept_even_when_not_understood(tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    foreign = {"key": {"kernel": "from the future"}, "extra": [1, 2]}
    path.write_text(json.dumps({"schema_version": 1, "entries": [foreign]}))
    winners.save(path, entry(), warn=_nothing)
    assert json.loads(path.read_text())["entries"] == [foreign, entry().as_json()]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ('{"schema_version": 1, "entries": [', "corrupt"),
        ("", "corrupt"),
        ("[1, 2]", "corrupt"),
        ('{"schema_version": 7, "entries": []}', "schema-7"),
    ],
)
def test_an_unusable_file_is_moved_aside_with_a_word(tmp_path: Path, text: str, label: str) -> None:
    path = tmp_path / "tuned.json"
    path.write_text(text)
    said: list[str] = []
    winners.save(path, entry(), warn=said.append)
    aside = [other for other in tmp_path.iterdir() if label in other.name]
    assert [other.read_text() for other in aside] == [text]
    assert len(said) == 1
    assert str(aside[0]) in said[0]
    assert read_store("user store", path).entries == (entry(),)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tuned.json"
    winners.save(path, entry(), warn=_nothing)
    before = path.read_bytes()

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        winners.save(path, entry(band=2), warn=_nothing)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_link_to_the_store_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    link = tmp_path / "tuned.json"
    link.symlink_to(real)
    winners.save(link, entry(), warn=_nothing)
    assert link.is_symlink()
    assert read_store("user store", real).entries == (entry(),)


def test_an_impossible_place_is_refused_with_the_fix(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(InvalidConfigError, match=r"cannot be written.*SONEW_STORE"):
        winners.prepare(blocked / "tuned.json")


WRITER = """
import sys
from pathlib import Path
from sonew_autotune.store import winners
from tests.autotune.entries import entry
for number in range(15):
    winners.save(Path(sys.argv[1]), entry(total_log2=int(sys.argv[2]) + number), warn=sys.exit)
"""


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(start)], env=environment) for start in (100, 200)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    read = read_store("user store", path)
    assert sorted(found.key.total_log2 for found in read.entries) == [*range(100, 115), *range(200, 215)]
