"""Writing the store: nothing lost, nothing half-written, nothing dropped in silence."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sonew.errors import InvalidConfigError, SonewError
from sonew.tuned import Entry, read_store
from sonew_autotune.store import winners
from sonew_autotune.store.bundle import write_bundle
from tests.autotune.entries import KEY, entry, sound_entry
from tests.autotune.store.full_disk import FAILING, fail


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
    others = [foreign, 7, {"evidence": {"time": math.nan}}]
    path.write_text(json.dumps({"schema_version": 1, "note": "by hand", "entries": others}))
    winners.save(path, entry(), warn=_nothing)
    document = json.loads(path.read_text())
    assert repr(document["entries"]) == repr([*others, entry().as_json()])  # a NaN is not equal to itself
    assert document["note"] == "by hand"


def test_several_entries_are_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tuned.json"
    written: list[str] = []

    def count(path: Path, text: str) -> None:
        written.append(text)
        path.write_text(text)

    monkeypatch.setattr(winners, "write_atomically", count)
    winners.save(path, entry(band=1), warn=_nothing)
    new = [entry({"segment": 16384}, band=1), entry(band=2), entry({"segment": 65536}, band=2)]
    winners.save_all(path, new, warn=_nothing)
    assert {found.key.band: found.config.as_dict() for found in read_store("user store", path).entries} == {
        1: {"segment": 16384},
        2: {"segment": 65536},
    }
    assert len(written) == 2
    winners.save(path, entry({"segment": 65536}, band=2), warn=_nothing)
    assert len(written) == 2, "what is stored already is not written again"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ('{"schema_version": 1, "entries": [', "corrupt"),
        ("", "corrupt"),
        ("[1, 2]", "corrupt"),
        ('{"schema_version": 1, "entries": ' + "[" * 40 + "]" * 40 + "}", "corrupt"),
    ],
)
def test_a_corrupt_file_is_moved_aside_with_a_word(tmp_path: Path, text: str, label: str) -> None:
    path = tmp_path / "tuned.json"
    path.write_text(text)
    said: list[str] = []
    winners.save(path, entry(), warn=said.append)
    aside = [other for other in tmp_path.iterdir() if label in other.name]
    assert [other.read_text() for other in aside] == [text]
    assert len(said) == 1
    assert str(aside[0]) in said[0]
    assert read_store("user store", path).entries == (entry(),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"schema_version": 7, "entries": [1]}', "schema_version 7, this version of sonew writes 1: nothing was changed. Use the version"),
        ('{"schema_version": "1", "entries": []}', "schema_version '1'"),
        ('{"schema_version": true, "entries": []}', "schema_version True"),
        ('{"entries": []}', "schema_version None"),
        ('{"schema_version": 1, "kind": "sonew-autotune bundle", "entries": []}', "Import it"),
    ],
)
def test_a_store_of_another_version_is_left_alone(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "tuned.json"
    path.write_text(text)
    for attempt in (lambda: winners.prepare(path), lambda: winners.save(path, entry(), warn=_nothing)):
        with pytest.raises(InvalidConfigError, match=words):
            attempt()
    assert path.read_text() == text
    assert {other.name for other in tmp_path.iterdir()} <= {"tuned.json", "tuned.json.lock"}


def test_a_folder_or_a_pipe_in_the_stores_place_is_left_alone(tmp_path: Path) -> None:
    folder, pipe = tmp_path / "folder", tmp_path / "pipe"
    folder.mkdir()
    os.mkfifo(pipe)
    for path in (folder, pipe):
        with pytest.raises(InvalidConfigError, match="is no regular file"):
            winners.save(path, entry(), warn=_nothing)
    assert folder.is_dir()
    assert pipe.is_fifo()


def test_a_store_that_may_not_be_read_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tuned.json"
    winners.save(path, entry(), warn=_nothing)

    def refuse(_path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(winners, "read_regular_file", refuse)
        with pytest.raises(SonewError, match=r"cannot be written \(.*Permission denied.*pass --store FILE"):
            winners.save(path, entry(band=2), warn=_nothing)
    assert read_store("user store", path).entries == (entry(),)


@pytest.mark.parametrize("broken", FAILING)
def test_a_full_disk_leaves_the_old_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    path = tmp_path / "tuned.json"
    winners.save(path, entry(), warn=_nothing)
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        fail(patched, broken)
        with pytest.raises(SonewError, match=r"the store .*tuned\.json cannot be written \(\[Errno 28\] No space left") as caught:
            winners.save_all(path, [entry(band=2), entry(band=3)], warn=_nothing)
    assert "SONEW_STORE" in str(caught.value)
    assert path.read_bytes() == before
    assert sorted(other.name for other in tmp_path.iterdir()) == ["tuned.json", "tuned.json.lock"]
    winners.save(path, entry(band=2), warn=_nothing)
    assert len(read_store("user store", path).entries) == 2


@pytest.mark.parametrize("broken", FAILING)
def test_a_full_disk_leaves_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    path = tmp_path / "bundle.json"
    write_bundle(path, [sound_entry()])
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        fail(patched, broken)
        with pytest.raises(SonewError, match=r"the bundle .*bundle\.json cannot be written \(\[Errno 28\] No space left"):
            write_bundle(path, [sound_entry(band=2)], overwrite=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def _with_evidence(**evidence: Any) -> Entry:
    return replace(entry(), evidence=evidence)


def _deep(levels: int) -> list[Any]:
    return [_deep(levels - 1)] if levels else []


@pytest.mark.parametrize("evidence", [{"time": math.inf}, {"path": Path("x")}, {"deep": _deep(40)}])
def test_evidence_that_no_reader_would_take_is_refused(tmp_path: Path, evidence: dict[str, Any]) -> None:
    path = tmp_path / "tuned.json"
    with pytest.raises(InvalidConfigError, match="cannot be stored: its evidence is no plain JSON"):
        winners.save_all(path, [entry(band=2), _with_evidence(**evidence)], warn=_nothing)
    assert not path.exists()


def test_a_store_does_not_grow_beyond_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tuned.json"
    winners.save(path, entry(), warn=_nothing)
    monkeypatch.setattr(winners, "LARGEST_FILE", path.stat().st_size + 100)
    with pytest.raises(InvalidConfigError, match="more than the"):
        winners.save(path, entry(band=2), warn=_nothing)
    assert read_store("user store", path).entries == (entry(),)


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


def test_writers_at_the_same_time_lose_nothing_even_when_killed(tmp_path: Path) -> None:
    """Ten rounds of eight writers, half of them killed at random moments: what was reported as saved is there, and no litter."""
    command = [sys.executable, "-m", "tests.autotune.store.crashing_writers", str(tmp_path / "tuned.json"), "20231", "10"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["", *sys.path])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) >= 30, "too few of the kills hit a writer at work"
