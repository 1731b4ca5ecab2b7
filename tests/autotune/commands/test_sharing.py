"""`export` and `import` from outside: round trips, all or nothing, and files that mean harm."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sonew import paths
from sonew.tuned import Entry, read_store
from sonew_autotune.store import winners
from sonew_autotune.store.bundle import make_bundle, read_bundle, write_bundle
from tests.autotune.commands.command_line import entries, invoke
from tests.autotune.entries import entry, sound_entry, static_entry
from tests.autotune.store.full_disk import FAILING, fail


def save(*new: Entry) -> None:
    """Put entries into the test's own store."""
    winners.save_all(paths.store_path(), new, warn=pytest.fail)


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file below with its content, None for what is no regular file."""
    below = [path for path in folder.rglob("*") if not path.name.endswith(".lock")]
    return {str(path): path.read_bytes() if path.is_file() and path.stat().st_size < 10**6 else None for path in sorted(below)}


def test_what_is_exported_comes_in_elsewhere(tmp_path: Path) -> None:
    save(sound_entry(), sound_entry(band=2), static_entry())
    file, other = tmp_path / "winners.json", tmp_path / "other" / "tuned.json"
    code, out, err = invoke("export", str(file))
    assert (code, err) == (0, "")
    assert out.startswith(f"3 entries in {file}, sha256 {read_bundle(file).sha256}.")
    code, out, err = invoke("import", str(file), "--store", str(other), "--json")
    assert (code, err) == (0, "")
    rows = entries(out)
    assert [(row["action"], row["usable"]) for row in rows] == [("added", False)] * 3
    assert "device is 'Some CPU'" in rows[0]["reasons"][0]
    came = read_store("user store", other).entries
    assert [(found.key, found.config) for found in came] == [
        (e.key, e.config) for e in (sound_entry(), sound_entry(band=2), static_entry())
    ]
    assert {found.evidence["imported_from"][0]["bundle"] for found in came} == {read_bundle(file).sha256}
    assert invoke("check", "--store", str(other))[0] == 0
    code, out, _ = invoke("import", str(file), "--store", str(other))
    assert (code, out.count("(it is stored already)"), out.splitlines()[-1]) == (0, 3, f"3 kept, in {other}.")


def test_export_takes_filters_and_says_what_it_left_out(tmp_path: Path) -> None:
    save(sound_entry(), static_entry(), entry(band=2))
    code, out, _ = invoke("export", str(tmp_path / "a.json"), "--kind", "static", "--json")
    assert code == 0
    (told,) = entries(out)
    assert (told["count"], told["kind"], told["file"]) == (1, "sonew-autotune bundle", str(tmp_path / "a.json"))
    assert read_bundle(tmp_path / "a.json").entries == (static_entry(),)
    code, _, err = invoke("export", str(tmp_path / "b.json"))
    assert code == 1
    assert "left out: " in err
    assert "evidence.median_ms is missing" in err
    assert read_bundle(tmp_path / "b.json").entries == (sound_entry(), static_entry())
    code, out, err = invoke("export", str(tmp_path / "c.json"), "--band", "8")
    assert (code, out) == (2, "")
    assert "there is nothing to export" in err
    assert not (tmp_path / "c.json").exists()


def test_export_overwrites_neither_files_nor_the_store(tmp_path: Path) -> None:
    save(sound_entry())
    notes = tmp_path / "notes"
    notes.write_text("mine")
    store = paths.store_path()
    before = store.read_bytes()
    for file, flags, message in (
        (notes, (), "exists: nothing was written. Pass --overwrite"),
        (store, (), "is the store itself"),
        (store, ("--overwrite",), "is the store itself"),
        (Path("/dev/null"), ("--overwrite",), "no regular file"),
        (tmp_path / "notes" / "x", (), "cannot be written"),
    ):
        code, out, err = invoke("export", str(file), *flags)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert message in err
    assert notes.read_text() == "mine"
    assert store.read_bytes() == before
    assert invoke("export", str(notes), "--overwrite")[0] == 0


def test_import_replaces_only_when_asked_and_a_dry_run_only_tells(tmp_path: Path) -> None:
    file = tmp_path / "bundle.json"
    write_bundle(file, [sound_entry(segment=65536), sound_entry(band=2)])
    save(sound_entry())
    before = snapshot(paths.store_path().parent)
    code, out, _ = invoke("import", str(file), "--replace", "--dry-run")
    assert code == 0
    assert out.splitlines()[-1] == "1 added, 1 replaced; nothing was written."
    assert snapshot(paths.store_path().parent) == before
    code, out, _ = invoke("import", str(file))
    assert (code, out.splitlines()[-1]) == (0, f"1 added, 1 kept, in {paths.store_path()}.")
    assert "was measured here; pass --replace to replace it" in out
    assert winners.find(paths.store_path(), sound_entry().key) == sound_entry()
    code, out, _ = invoke("import", str(file), "--replace", "--json")
    assert [row["action"] for row in entries(out)] == ["replaced", "kept"]
    found = winners.find(paths.store_path(), sound_entry().key)
    assert found is not None
    assert found.config.as_dict()["segment"] == 65536


ESCAPES = "\x1b[2J\x1b]8;;file:///etc/passwd\x07[red]\u202e"
UNSOUND: dict[str, Entry] = {
    "a path for a name": sound_entry(kernel="../../../etc/cron.d/x"),
    "a path for a device": sound_entry(device="/etc/passwd\x00", toolchain=""),
    "escape sequences": sound_entry({"result": ESCAPES}, device=ESCAPES),
    "lone surrogates": sound_entry(device="\ud800"),
    "a huge number in the key": sound_entry(total_log2=10**4000),
    "a huge number in the configuration": sound_entry(segment=10**4000),
    "a huge number in the evidence": sound_entry({"median_ms": 10**4000}),
    "types that lie": sound_entry({"samples": "x", "ratio_to_default": [1], "trials": {}}),
    "a long text": sound_entry(device="x" * 10**6),
    "a band that is not": sound_entry(band=3000),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_a_bundle_with_an_unsound_entry_changes_nothing(tmp_path: Path, name: str) -> None:
    save(sound_entry())
    file = tmp_path / "bundle.json"
    file.write_text(json.dumps(make_bundle([sound_entry(band=2), UNSOUND[name]])))
    before = snapshot(tmp_path.parent)
    code, out, err = invoke("import", str(file))
    assert code == 2
    assert err == "error: 1 of 2 entries are not sound: nothing was imported.\n"
    assert [line.split(":")[0] for line in out.splitlines()] == ["held back", "refused", "1 refused, 1 held back; nothing was written."]
    assert all(character.isprintable() or character == "\n" for character in out)
    assert max(map(len, out.splitlines())) < 1100
    assert snapshot(tmp_path.parent) == before
    code, out, _ = invoke("import", str(file), "--json")
    assert (code, [row["action"] for row in entries(out)]) == (2, ["held back", "refused"])


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _large(path: Path) -> None:
    with path.open("wb") as handle:
        handle.truncate(200 * 10**6)  # takes no room


def _edited(**change: Any) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps({**make_bundle([sound_entry()]), **change}))


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda _path: None, "cannot be read"),
    "a folder": (Path.mkdir, "is no regular file"),
    "a pipe": (_fifo, "is no regular file"),
    "a link to a device": (lambda path: path.symlink_to("/dev/zero"), "is no regular file"),
    "a link in a circle": (lambda path: path.symlink_to(path), "cannot be read"),
    "200 MB": (_large, "has 200000000 bytes, more than"),
    "not UTF-8": (lambda path: path.write_bytes(b"\xff\xfe\x00\x01"), "not readable as JSON"),
    "a pickle": (lambda path: path.write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR."), "not readable as JSON"),
    "deep nesting": (lambda path: path.write_text("[" * 10**6), "nested in more than 32 levels"),
    "a name twice": (lambda path: path.write_text('{"a": 1, "a": 2}'), "the name 'a' twice"),
    "a number beyond floats": (lambda path: path.write_text('{"a": 1e400}'), "beyond the range"),
    "NaN": (lambda path: path.write_text('{"a": NaN}'), "is no JSON number"),
    "a store": (lambda path: path.write_text('{"schema_version": 1, "entries": []}'), "is not a bundle"),
    "another version": (_edited(schema_version=9), "has schema_version 9"),
    "an edited entry": (_edited(entries=[sound_entry(segment=65536).as_json()]), "is damaged or was edited"),
    "entries of a wrong type": (_edited(entries="all"), "with a list of entries"),
}


@pytest.mark.parametrize("name", FILES)
def test_any_other_file_is_one_line_and_changes_nothing(tmp_path: Path, name: str) -> None:
    make, message = FILES[name]
    save(sound_entry())
    file = tmp_path / "bundle.json"
    make(file)
    before = snapshot(paths.store_path().parent)
    code, out, err = invoke("import", str(file))
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err
    assert snapshot(paths.store_path().parent) == before


def test_import_into_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    file, store = tmp_path / "bundle.json", tmp_path / "tuned.json"
    write_bundle(file, [sound_entry()])
    store.write_text('{"schema_version": 2, "entries": [1]}')
    for flags in ((), ("--dry-run",), ("--replace",)):
        code, out, err = invoke("import", str(file), "--store", str(store), *flags)
        assert (code, out) == (2, "")
        assert "schema_version 2, this version of sonew writes 1: nothing was changed" in err
    assert store.read_text() == '{"schema_version": 2, "entries": [1]}'


@pytest.mark.parametrize("broken", FAILING)
def test_a_full_disk_is_one_line_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    file, exported = tmp_path / "bundle.json", tmp_path / "exported.json"
    write_bundle(file, [sound_entry(band=2)])
    save(sound_entry())
    before = snapshot(paths.store_path().parent)
    with monkeypatch.context() as patched:
        fail(patched, broken)
        for command in (("import", str(file)), ("export", str(exported))):
            code, out, err = invoke(*command)
            assert (code, out, len(err.splitlines())) == (2, "", 1)
            assert "No space left on device" in err
    assert snapshot(paths.store_path().parent) == before
    assert list(tmp_path.iterdir()) == [file]


def test_help_teaches() -> None:
    for command in ("export", "import", "check", "doctor"):
        code, out, _ = invoke(command, "--help")
        assert code == 0
        assert f"sonew-autotune {command}" in out
        assert "Exit codes" in out
