"""What `check`, `export` and `import` call wrong, field by field, and what they only note."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sonew.config import LaunchConfig
from sonew.tuned import Entry
from sonew_autotune.store.audit import Finding, audit_store, entry_problems
from tests.autotune.entries import SOUND, TRITON_CONFIG, sound_entry, static_entry


def test_sound_entries_have_no_problems() -> None:
    assert entry_problems(sound_entry()) == []
    assert entry_problems(static_entry()) == []
    assert entry_problems(static_entry(capability="hip:gfx942", band=4)) == []
    origin = {"bundle": "0" * 64, "imported": "2026-11-02T00:00:00Z"}
    assert entry_problems(sound_entry({"imported_from": [origin]})) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kernel": "../../etc"}, "key.kernel is '../../etc', not one of"),
        ({"entry": "window"}, "key.entry is 'window', not one of ['table', 'direct']"),
        ({"device": "any"}, "a measurement is of one device"),
        ({"device": ""}, "key.device is '', expected 1 to 200 printable characters"),
        ({"device": "\x1b[31mred"}, r"key.device is '\x1b[31mred', expected 1 to 200 printable"),
        ({"device": "x" * 201}, "key.device is 'xxx"),
        ({"capability": "cuda:90"}, "key.capability is 'cuda:90', expected one of ['avx512f',"),
        ({"threads": 0}, "key.threads is 0, allowed on a cpu: 1 to 4096"),
        ({"threads": 10**400}, "key.threads is 1000"),
        ({"band": -1}, "configuration not valid: band=-1 is not one of"),
        ({"band": 9}, "configuration not valid: band=9"),
        ({"chain": "ring"}, "key.chain is 'ring'"),
        ({"param_dtype": "float64"}, "key.param_dtype is 'float64', not one of ['float32', 'bfloat16', 'float16']"),
        ({"grad_dtype": "int8"}, "key.grad_dtype"),
        ({"state_dtype": "float16"}, "key.state_dtype is 'float16', not one of ['float32', 'bfloat16']"),
        ({"direction_dtype": "float16"}, "key.direction_dtype"),
        ({"total_log2": 64}, "cannot be, at most 2^63"),
        ({"total_log2": 10**300, "median_log2": 1}, "cannot be, at most 2^63"),
        ({"median_log2": 17}, "sizes 2^16 in all and 2^17 in the median cannot be"),
        ({"median_log2": -1}, "cannot be"),
        ({"toolchain": "g++\n12"}, r"key.toolchain is 'g++\n12'"),
        ({"source_hash": "xyz"}, "key.source_hash is 'xyz', expected 16 hexadecimal digits"),
    ],
)
def test_each_field_of_the_key_has_its_rule(fields: dict[str, Any], words: str) -> None:
    problems = entry_problems(sound_entry(**fields))
    assert any(words in problem for problem in problems), problems
    assert all(len(problem) < 600 for problem in problems)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"segment": 4096, "block": 1024}, "cpu takes ['block', 'segment', 'threads'], got ['block', 'segment']"),
        ({"segment": 1, "block": 1024, "threads": 0}, "segment=1 is not one of"),
        ({"segment": 4096, "block": 1024, "threads": 10**400}, "threads=1000"),
    ],
)
def test_the_configuration_must_be_a_point_of_the_space(config: dict[str, int], words: str) -> None:
    (problem,) = entry_problems(replace(sound_entry(), config=LaunchConfig.of("cpu", config)))
    assert problem.startswith("configuration not valid: ")
    assert words in problem
    (halo,) = entry_problems(replace(static_entry(band=16), config=LaunchConfig.of("triton", {**TRITON_CONFIG, "block": 64})))
    assert "block=64 is not one of" in halo


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("result", None),
        ("result", 7),
        ("result", "[bold]\x1b"),
        ("ratio_to_default", 0.5),
        ("ratio_to_default", {"median": 0.5, "low": 0.6, "high": 0.7}),
        ("ratio_to_default", {"median": 0, "low": 0, "high": 1}),
        ("ratio_to_default", {"median": True, "low": True, "high": True}),
        ("versions", {}),
        ("versions", {"torch": 2}),
        ("date", "yesterday"),
        ("date", "2999-01-01T00:00:00Z"),
        ("date", 20261127),
        ("median_ms", 0),
        ("median_ms", "1.5"),
        ("median_ms", 10**400),
        ("spread", -0.1),
        ("samples", {"default": 3}),
        ("samples", [1]),
        ("ratio_to_adamw", {}),
        ("roof_share", -1),
        ("peak_bytes", 1.5),
        ("trials", True),
        ("space", "40"),
        ("imported_from", "x"),
        ("imported_from", [{"bundle": 7}]),
    ],
)
def test_evidence_must_be_complete_and_of_its_types(name: str, value: Any) -> None:
    (problem,) = entry_problems(sound_entry({name: value}))
    assert problem.startswith(f"evidence.{name}")
    assert ", expected " in problem
    assert len(problem) < 600


def test_every_field_of_evidence_is_missed() -> None:
    (first, *others) = entry_problems(replace(sound_entry(), evidence={}))
    assert first == "evidence.result is missing, expected a short text"
    assert len(others) + 1 == len(SOUND)
    assert len(entry_problems(replace(static_entry(), evidence={}))) == 6


def notes_on(entry: Entry) -> tuple[str, ...]:
    return ("of another machine",) if entry.key.device != "Some CPU" else ()


def _audit(path: Path, entries: list[Any], **head: Any) -> list[Finding]:
    path.write_text(json.dumps({"schema_version": 1, **head, "entries": entries}))
    return audit_store("user store", path, notes_on)


def test_every_entry_has_a_finding_in_its_place(tmp_path: Path) -> None:
    sound, other = sound_entry().as_json(), sound_entry(device="Other CPU").as_json()
    twice, bad = sound_entry(segment=16384).as_json(), sound_entry(band=2, threads=0).as_json()
    store, *found = _audit(tmp_path / "tuned.json", [sound, other, 7, twice, bad])
    assert (store.index, store.status, store.problems) == (None, "ok", ())
    assert [finding.index for finding in found] == [0, 1, 2, 3, 4]
    assert [finding.status for finding in found] == ["ok", "ok", "wrong", "wrong", "wrong"]
    assert found[1].notes == ("of another machine",)
    assert found[2].problems == ("entry is 7, expected dict",)
    assert found[2].entry is None
    assert found[3].problems == ("it has the key and kind of entry 0: one of them is never used",)
    assert "key.threads is 0" in found[4].problems[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{broken", "not readable as JSON"),
        (b"\xff", "not readable as JSON"),
        (b"[]", "not a store"),
        (b'{"schema_version": 2, "entries": []}', "schema_version is 2, this version reads 1"),
    ],
)
def test_a_store_that_cannot_be_read_is_one_finding(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "tuned.json"
    path.write_bytes(content)
    (finding,) = audit_store("user store", path, notes_on)
    assert (finding.index, finding.status) == (None, "unreadable")
    assert words in finding.problems[0]


def test_no_store_is_a_note_and_a_folder_is_not(tmp_path: Path) -> None:
    (absent,) = audit_store("user store", tmp_path / "tuned.json", notes_on)
    assert (absent.status, absent.notes) == ("ok", ("there is none yet: run sonew-autotune run",))
    (folder,) = audit_store("user store", tmp_path, notes_on)
    assert (folder.status, "no regular file" in folder.problems[0]) == ("unreadable", True)


def test_a_store_that_everybody_may_write_is_noted(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    path = folder / "tuned.json"
    assert _audit(path, [])[0].notes == ()
    path.chmod(0o666)
    assert _audit(path, [])[0].notes == (f"every user of this machine may write the store {path}: chmod o-w {path}",)
    path.chmod(0o644)
    folder.chmod(0o1777)
    assert _audit(path, [])[0].notes == (), "the sticky bit protects the file"
    folder.chmod(0o777)
    assert _audit(path, [])[0].notes == (f"every user of this machine may write its folder {folder}: chmod o-w {folder}",)
