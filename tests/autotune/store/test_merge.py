"""Taking entries in: all or nothing, measurements of this machine stay, and where an entry came from is kept with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sonew.errors import InvalidConfigError, SonewError
from sonew.tuned import Entry, read_store
from sonew_autotune.store import winners
from sonew_autotune.store.audit import entry_problems
from sonew_autotune.store.merge import Outcome, import_entries
from tests.autotune.entries import entry, sound_entry, static_entry
from tests.autotune.store.full_disk import FAILING, fail

SOURCE = {"bundle": "ab" * 32, "bundle_date": "2026-11-02T00:00:00Z"}
ORIGIN = [{**SOURCE, "imported": "2026-11-03T00:00:00Z"}]
OLD, NEW = "2026-10-01T00:00:00Z", "2026-11-20T00:00:00Z"


def _nothing(line: str) -> None:
    pytest.fail(f"unexpected warning: {line}")


def take(store: Path, *entries: Entry, replace_stored: bool = False, dry_run: bool = False) -> list[tuple[str, str]]:
    """(action, reason) of each entry."""
    outcomes = import_entries(entries, store=store, source=SOURCE, replace_stored=replace_stored, dry_run=dry_run, warn=_nothing)
    assert [outcome.entry for outcome in outcomes] == list(entries)
    return [(outcome.action, outcome.reason) for outcome in outcomes]


def stored(store: Path) -> dict[int, Entry]:
    """The store's entries by band."""
    read = read_store("user store", store)
    assert read.problems == ()
    return {found.key.band: found for found in read.entries}


def test_entries_are_added_with_where_they_came_from(tmp_path: Path) -> None:
    store = tmp_path / "deep" / "tuned.json"
    earlier = sound_entry({"imported_from": ORIGIN}, band=2)
    assert take(store, sound_entry(), earlier) == [("added", ""), ("added", "")]
    found = stored(store)
    (origin,) = found[1].evidence["imported_from"]
    assert {name: origin[name] for name in SOURCE} == SOURCE
    assert set(origin) == {*SOURCE, "imported"}
    assert found[2].evidence["imported_from"] == [*ORIGIN, origin]
    assert replace(found[1], evidence={k: v for k, v in found[1].evidence.items() if k != "imported_from"}) == sound_entry()
    assert [entry_problems(taken) for taken in found.values()] == [[], []]


@pytest.mark.parametrize(
    ("here", "coming", "action", "words"),
    [
        ({}, {}, "kept", "it is stored already"),
        ({"imported_from": ORIGIN}, {}, "kept", "it is stored already"),
        ({"date": OLD}, {"date": NEW}, "kept", "was measured here; pass --replace"),
        ({"date": OLD, "imported_from": ORIGIN}, {"date": NEW}, "replaced", f"the stored one is of {OLD}"),
        ({"date": NEW, "imported_from": ORIGIN}, {"date": OLD}, "kept", f"the stored one of {NEW} is as new or newer"),
        ({"date": OLD, "imported_from": ORIGIN}, {"date": OLD, "trials": 9}, "kept", "is as new or newer"),
        ({"date": "lost", "imported_from": ORIGIN}, {"date": OLD}, "replaced", "the stored one is of lost"),
    ],
)
def test_what_was_measured_here_and_what_is_newer_stays(
    tmp_path: Path, here: dict[str, object], coming: dict[str, object], action: str, words: str
) -> None:
    store = tmp_path / "tuned.json"
    mine, theirs = sound_entry(here, segment=4096), sound_entry(coming, segment=4096 if "already" in words else 65536)
    winners.save(store, mine, warn=_nothing)
    before = store.read_bytes()
    ((got, reason),) = take(store, theirs)
    assert (got, words in reason) == (action, True), reason
    assert (store.read_bytes() == before) == (action == "kept")
    assert stored(store)[1].config == (mine if action == "kept" else theirs).config


def test_replace_takes_the_place_of_anything_but_keeps_static_below_measured(tmp_path: Path) -> None:
    store = tmp_path / "tuned.json"
    measured = replace(static_entry(), kind="measured", evidence=sound_entry().evidence)
    measured = replace(measured, key=replace(measured.key, device="NVIDIA H100"))
    static = replace(static_entry(), key=measured.key)
    winners.save_all(store, [sound_entry({"date": NEW}), measured], warn=_nothing)
    coming = sound_entry({"date": OLD}, segment=65536)
    for again in (False, True):
        assert [action for action, _ in take(store, coming, static, replace_stored=True)] == ["kept" if again else "replaced", "kept"]
    read = read_store("user store", store).entries
    assert [(found.kind, found.key.kernel) for found in read] == [("measured", "triton"), ("measured", "cpu")]
    assert read[1].config == coming.config
    assert take(store, static_entry()) == [("added", "")], "another key: the general one"


def test_one_bad_entry_refuses_all(tmp_path: Path) -> None:
    store = tmp_path / "tuned.json"
    winners.save(store, sound_entry(), warn=_nothing)
    before = store.read_bytes()
    actions = take(store, sound_entry(band=2), sound_entry(band=4, device="../../x\n"), sound_entry(band=2), entry(band=3))
    assert [action for action, _ in actions] == ["held back", "refused", "refused", "refused"]
    assert "key.device" in actions[1][1]
    assert "another entry before it has the same key and kind" in actions[2][1]
    assert "configuration not valid" in actions[3][1]
    assert "evidence.median_ms is missing" in actions[3][1]
    assert store.read_bytes() == before
    store.write_text("{broken")
    assert take(store, entry())[0][0] == "refused"
    assert store.read_text() == "{broken", "nothing is moved aside for nothing"
    assert sorted(other.name for other in tmp_path.iterdir()) == ["tuned.json", "tuned.json.lock"]


@pytest.mark.parametrize("text", ["", "x" * 201, "two\nlines"])
def test_where_entries_come_from_is_told_in_short_texts(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidConfigError, match="it must be texts of 1 to 200 printable characters"):
        import_entries([sound_entry()], store=tmp_path / "tuned.json", source={"storage": text}, warn=_nothing)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_decides_and_writes_nothing(tmp_path: Path) -> None:
    store = tmp_path / "deep" / "tuned.json"
    assert take(store, sound_entry(), dry_run=True) == [("added", "")]
    assert list(tmp_path.iterdir()) == []
    store.parent.mkdir()
    store.write_text("{broken")
    said: list[str] = []
    (outcome,) = import_entries([sound_entry()], store=store, source=SOURCE, dry_run=True, warn=said.append)
    assert outcome == Outcome(entry=sound_entry(), action="added")
    assert "would be moved aside" in said[0]
    assert [other.name for other in store.parent.iterdir()] == ["tuned.json"]


def test_entries_that_cannot_be_read_make_room_and_others_stay(tmp_path: Path) -> None:
    store = tmp_path / "tuned.json"
    broken = {**sound_entry().as_json(), "config": "x"}
    store.write_text(json.dumps({"schema_version": 1, "entries": [7, broken, {"key": "?"}]}))
    assert take(store, sound_entry()) == [("replaced", "the stored one is not readable")]
    kept = json.loads(store.read_text())["entries"]
    assert kept[:2] == [7, {"key": "?"}]
    assert len(kept) == 3


def test_a_store_of_another_version_takes_nothing_in(tmp_path: Path) -> None:
    store = tmp_path / "tuned.json"
    store.write_text('{"schema_version": 2, "entries": []}')
    for dry_run in (False, True):
        with pytest.raises(InvalidConfigError, match="schema_version 2"):
            take(store, sound_entry(), dry_run=dry_run)


@pytest.mark.parametrize("broken", FAILING)
def test_a_full_disk_takes_nothing_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    store = tmp_path / "tuned.json"
    winners.save(store, sound_entry(), warn=_nothing)
    before = store.read_bytes()
    with monkeypatch.context() as patched:
        fail(patched, broken)
        with pytest.raises(SonewError, match="No space left"):
            take(store, sound_entry(band=2), sound_entry(band=4))
    assert store.read_bytes() == before
