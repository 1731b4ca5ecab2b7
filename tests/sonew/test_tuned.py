"""Stored configurations: any file can be read without a crash, and what cannot be used leaves a line that says why."""

from __future__ import annotations

import json
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonew.config import LaunchConfig, Problem
from sonew.errors import InvalidConfigError
from sonew.tuned import Entry, Key, Kind, best, judge, make_key, near_miss, parse_entry, read_store

ENVIRONMENT: dict[str, str | int] = {"device": "A CPU", "capability": "avx2", "threads": 2, "toolchain": "g++ 12"}
KEY = make_key(Problem(device="cpu", band=1, total=4096, median=1024), "cpu", ENVIRONMENT, "abc")
ENTRY = Entry(key=KEY, kind="measured", config=LaunchConfig.of("cpu", {"block": 512}), evidence={"date": "2026-01-01"})

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


def static(**changes: Any) -> Entry:
    """A static entry for any device of KEY's capability."""
    return Entry(key=replace(KEY, device="any", threads=0, **changes), kind="static", config=ENTRY.config, evidence={})


@st.composite
def damaged_entries(draw: st.DrawFn) -> Any:
    """A valid entry with one or two places overwritten or removed."""
    document: Any = json.loads(json.dumps(ENTRY.as_json()))
    for _ in range(draw(st.integers(1, 2))):
        holder = draw(st.sampled_from([document, *(part for part in document.values() if isinstance(part, dict))]))
        if holder:
            name = draw(st.sampled_from(sorted(holder)))
            if draw(st.booleans()):
                del holder[name]
            else:
                holder[name] = draw(json_values)
    return document


def test_entries_survive_the_way_through_json() -> None:
    assert parse_entry(json.loads(json.dumps(ENTRY.as_json()))) == ENTRY


def test_keys_name_the_problem_and_the_device() -> None:
    assert (KEY.kernel, KEY.entry, KEY.device, KEY.capability, KEY.threads) == ("cpu", "table", "A CPU", "avx2", 2)
    assert (KEY.total_log2, KEY.median_log2, KEY.toolchain, KEY.source_hash) == (12, 10, "g++ 12", "abc")


@given(json_values | damaged_entries())
@settings(max_examples=150)
def test_parsing_takes_an_entry_or_refuses_it(raw: Any) -> None:
    try:
        entry = parse_entry(raw)
    except InvalidConfigError:
        return
    assert all(type(getattr(entry.key, field.name)) in (int, str) for field in fields(Key))
    assert all(type(value) is int for value in entry.config.as_dict().values())
    assert entry.kind in ("measured", "static")
    judge("user store", entry, KEY, None)


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=80)
def test_any_file_is_read_without_a_crash(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tuned.json")
        path.write_bytes(content)
        store = read_store("user store", path)
    assert not store.entries
    assert store.problems
    assert all(line.startswith(f"user store {path}: ") for line in store.problems)


@given(st.lists(damaged_entries() | json_values, max_size=4))
@settings(max_examples=60)
def test_good_entries_survive_beside_bad_ones(others: list[Any]) -> None:
    document = {"schema_version": 1, "entries": [*others, ENTRY.as_json()]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tuned.json")
        path.write_text(json.dumps(document), encoding="utf-8")
        store = read_store("user store", path)
    assert store.entries[-1] == ENTRY
    assert len(store.entries) + len(store.problems) == len(others) + 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["not readable as JSON", "tune again"]),
        ('{"schema_version": 1, "entries": [', ["not readable as JSON"]),
        ("[" * 100_000, ["not readable as JSON"]),
        ("[]", ["not a store"]),
        ("null", ["not a store"]),
        ('{"schema_version": 1}', ["not a store"]),
        ('{"schema_version": 1, "entries": {}}', ["not a store"]),
        ('{"schema_version": 2, "entries": []}', ["schema_version is 2", "reads 1"]),
        ('{"entries": []}', ["schema_version is None"]),
        ('{"schema_version": 1, "entries": [7]}', ["entry 0", "expected dict"]),
        ('{"schema_version": 1, "entries": [{"key": {}}]}', ["entry 0", "lacks", "evidence"]),
    ],
)
def test_each_damage_has_its_line(tmp_path: Path, content: str, words: list[str]) -> None:
    path = tmp_path / "tuned.json"
    path.write_text(content, encoding="utf-8")
    store = read_store("shipped store", path)
    assert store.entries == ()
    assert [word for word in (*words, "shipped store", str(path)) if word not in store.problems[0]] == []


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        (("key", "band"), "1", ["key.band", "'1'", "int"]),
        (("key", "band"), True, ["key.band", "True"]),
        (("key", "device"), None, ["key.device", "None", "str"]),
        (("kind",), "guessed", ["'guessed'", "measured", "static"]),
        (("config", "block"), 512.0, ["config.block", "512.0", "int"]),
        (("config",), [], ["config", "dict"]),
        (("evidence",), "yes", ["evidence", "dict"]),
        (("key", "colour"), "red", ["colour", "expected"]),
    ],
)
def test_a_wrong_type_is_named(where: tuple[str, ...], value: Any, words: list[str]) -> None:
    raw = json.loads(json.dumps(ENTRY.as_json()))
    holder = raw
    for name in where[:-1]:
        holder = holder[name]
    holder[where[-1]] = value
    with pytest.raises(InvalidConfigError) as caught:
        parse_entry(raw)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_missing_file_is_an_empty_store_and_a_folder_a_problem(tmp_path: Path) -> None:
    assert read_store("user store", tmp_path / "none.json").problems == ()
    assert "not readable" in read_store("user store", tmp_path).problems[0]
    assert "not readable" in read_store("user store", tmp_path / ("x" * 5000)).problems[0]


@pytest.mark.parametrize("name", [field.name for field in fields(Key) if field.name not in ("total_log2", "median_log2")])
def test_every_field_but_the_size_must_match(name: str) -> None:
    have = getattr(KEY, name)
    other: Any = have + 1 if isinstance(have, int) else f"{have}-other"
    verdict = judge("user store", replace(ENTRY, key=replace(KEY, **{name: other})), KEY, None)
    assert len(verdict.reasons) == 1
    assert f"{name} is {other!r}, here {have!r}" in verdict.reasons[0]
    assert verdict.reasons[0].startswith("stale: ") == (name in ("toolchain", "source_hash"))
    assert best([verdict]) is None


def test_an_invalid_configuration_is_a_reason() -> None:
    verdict = judge("user store", ENTRY, KEY, "block=512 is odd")
    assert verdict.reasons == ("configuration not valid: block=512 is odd",)


def test_static_entries_hold_for_every_device_of_the_capability() -> None:
    assert judge("shipped store", static(), KEY, None).reasons == ()
    assert judge("shipped store", static(capability="avx512f"), KEY, None).reasons
    measured = replace(static(), kind="measured")
    assert judge("shipped store", measured, KEY, None).reasons, "a measurement never serves another device"


def verdict(kind: Kind, total: int, store: str = "user store") -> Any:
    """Of a usable entry `total` buckets away."""
    entry = static() if kind == "static" else ENTRY
    return judge(store, replace(entry, key=replace(entry.key, total_log2=KEY.total_log2 + total)), KEY, None)


@pytest.mark.parametrize(
    ("candidates", "winner"),
    [
        ([verdict("measured", 3), verdict("measured", 0), verdict("measured", -1)], 1),
        ([verdict("measured", 3), verdict("measured", -2)], 1),
        ([verdict("static", 0), verdict("measured", 5)], 1),
        ([verdict("static", 2), verdict("static", 1)], 1),
        ([verdict("measured", 0), verdict("measured", 0, "shipped store")], 0),
        ([verdict("measured", 1), verdict("measured", 0, "shipped store")], 1),
    ],
)
def test_measured_before_static_then_nearest_then_first(candidates: list[Any], winner: int) -> None:
    assert best(candidates) is candidates[winner]


def test_no_verdicts_no_choice() -> None:
    assert best([]) is None
    assert near_miss([]) is None


def test_the_near_miss_fails_on_the_fewest_fields() -> None:
    one = judge("user store", replace(ENTRY, key=replace(KEY, device="B")), KEY, None)
    two = judge("user store", replace(ENTRY, key=replace(KEY, device="B", band=3)), KEY, None)
    assert near_miss([two, one]) is one
