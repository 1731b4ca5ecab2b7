"""Reading studies: from journals that are being written, from shared storages, and from whatever else lies there."""

from __future__ import annotations

import fcntl
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import pytest

from sonew.errors import InvalidConfigError
from sonew_autotune.report import reading
from sonew_autotune.report.studies import RawStudy, read_record, read_study
from tests.autotune.report.made import entry_of, key_of, raw_study, record_of, space_of, write_journal

HARMFUL: Final[tuple[Any, ...]] = (None, "x", [], {"median": -1})


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def no_warning(line: str) -> None:
    raise AssertionError(line)


def test_a_journal_that_is_being_written_is_read_and_left_alone(tmp_path: Path) -> None:
    """Its locks are held, and its last line is not finished."""
    journal = tmp_path / "studies" / "one.journal"
    write_journal(journal, raw_study(count=8, decided=False, running=2))
    with journal.open("a") as handle:
        handle.write('{"op_code": 8, "worker_id": "half a li')
    before = contents(tmp_path)
    lock = os.open(f"{journal}.write-lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    before = contents(tmp_path)
    try:
        (found,) = reading.read_state(tmp_path, no_warning)
    finally:
        os.close(lock)

    assert contents(tmp_path) == before
    assert (found.name, found.source) == (raw_study().name, str(journal))
    assert (len(found.records), found.running) == (8, 2)
    assert found.subject == raw_study().subject


def test_every_journal_of_a_state_folder_is_read_and_a_broken_one_is_named(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_journal(tmp_path / "studies" / f"{name}.journal", raw_study(name=name, records=[], decided=False))
    (tmp_path / "studies" / "broken.journal").write_text('{"op_code": 0, "worker_id": "x"}\n{]\n')
    (tmp_path / "studies" / "foreign.journal").write_text("a single line\n")
    (tmp_path / "studies" / "just-begun.journal").write_text('{"op_code": 0, "wor')
    (tmp_path / "studies" / "folder.journal").mkdir()
    (tmp_path / "studies" / "c.journal.corrupt-20260101T000000Z").write_text("set aside")
    warnings: list[str] = []

    assert [study.name for study in reading.read_state(tmp_path, warnings.append)] == ["a", "b"]
    expected = ("broken.journal is no journal", "folder.journal is no regular file", "foreign.journal is no journal")
    assert [text in line for text, line in zip(expected, warnings, strict=True)] == [True] * 3
    assert reading.read_state(tmp_path / "nowhere", no_warning) == []


def test_a_shared_journal_has_its_decisions(tmp_path: Path) -> None:
    raw = raw_study()
    write_journal(tmp_path / "shared.journal", replace(raw, records=[]))

    (found,) = reading.read_storage(str(tmp_path / "shared.journal"))

    assert found.entry == raw.entry
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shared.journal"]


def test_a_storage_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    for url in (str(tmp_path / "none.journal"), f"sqlite:///{tmp_path}/none.db"):
        with pytest.raises(InvalidConfigError, match="does not exist, so there is nothing to report"):
            reading.read_storage(url)
    with pytest.raises(InvalidConfigError, match="'redis', which is not one of"):
        reading.read_storage("redis://host/0")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"ratio": None},
        {"ratio": {"median": 0, "low": 1, "high": 1}},
        {"ratio": {"median": 1e-320, "low": 1, "high": 1}},
        {"ratio": {"median": float("nan"), "low": 1, "high": 1}},
        {"ratio": {"median": "<b>", "low": 1, "high": 1}},
        {"ratio": [1, 1, 1]},
        {"config": {"segment": "16384"}},
        {"config": {"segment": 10**400}},
        {"config": []},
        {"times_ms": [1.0, None]},
        {"times_ms": 3},
        {"median_ms": True},
        {"roof_share": "all"},
        {"finished": -1},
        {"failure": {"kind": "wrong", "message": "both"}},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_record_of_no_form_is_none(change: dict[str, Any]) -> None:
    sound = record_of("cpu", space_of("cpu").default, 1).as_json()

    assert read_record(sound) is not None
    assert read_record({**sound, **change}) is None


def test_unreadable_records_are_counted_and_the_first_of_a_configuration_counts() -> None:
    first, second = (record_of("cpu", space_of("cpu").default, number) for number in (1, 2))
    study = read_study(raw_study(records=[second.as_json(), None, {"config": {}}, first.as_json(), 7]), ())

    assert study.records == (first,)
    assert study.unreadable == 3
    assert study.notes == ("3 trials carry a record that is not readable; they are left out.",)


def test_the_stored_entry_of_the_same_key_and_shapes_is_the_decision() -> None:
    winner = {"segment": 65536, "block": 2048, "threads": 0}
    sound = entry_of(key_of("cpu"), winner)
    others = [
        entry_of(key_of("cpu", device="Another CPU"), winner),
        entry_of(key_of("cpu"), winner, shapes=[[2048, 2048]]),
        entry_of(key_of("cpu"), winner, case="another model"),
        replace(sound, kind="static"),
    ]

    decision = read_study(raw_study(decided=False), [sound, *others]).decision
    assert decision is not None
    assert (decision.tuned, decision.config) == (True, winner)
    assert read_study(raw_study(decided=False), others).decision is None


def test_a_study_that_says_nothing_is_told_by_its_name() -> None:
    raw = raw_study(decided=False, subject=None)
    entry = entry_of(key_of("cpu"), {"segment": 65536, "block": 2048, "threads": 0})
    study = read_study(raw, [entry])

    assert (study.kernel, study.band, study.case, study.space) == ("cpu", 1, "4194304", 40)
    assert study.default == space_of("cpu").default
    assert study.axes == space_of("cpu").axes  # every value was tried
    assert study.key == entry.key
    assert "found by the study's name" in study.notes[0]
    two = [entry, replace(entry, key=key_of("cpu", device="Another CPU"))]
    assert read_study(raw, two).decision is None
    assert "cannot be told from others" in read_study(raw, two).notes[0]


@pytest.mark.parametrize(
    "subject",
    [
        7,
        {},
        {"key": {}, "case": {}, "default": {}},
        {"key": asdict(key_of("cpu")), "case": None, "default": {"segment": 1}},
        {"key": asdict(key_of("cpu")), "case": {}, "default": {"segment": "1"}},
        {"key": {**asdict(key_of("cpu")), "band": "one"}, "case": {}, "default": {"segment": 1}},
    ],
)
def test_a_statement_of_no_form_says_nothing(subject: object) -> None:
    assert read_study(raw_study(subject=subject), ()).axes == space_of("cpu").axes


def test_a_statement_without_bounds_is_bounded() -> None:
    raw = raw_study(decided=False)
    assert isinstance(raw.subject, dict)
    endless = {**raw.subject, "space": {"segment": list(range(10_000)), "block": [10**400]}}

    assert read_study(replace(raw, subject=endless), ()).axes == space_of("cpu").axes


def test_evidence_may_lack_anything() -> None:
    empty, entry = raw_study(records=[]), entry_of(key_of("cpu"), {"segment": 65536, "block": 2048, "threads": 0})
    for name in entry.evidence:
        for value in HARMFUL:
            changed = replace(entry, evidence={**entry.evidence, name: value})
            assert read_study(replace(empty, entry=changed.as_json()), ()).decision is not None
    broken = read_study(RawStudy(name="n", source="s", entry={"key": 1}), ())
    assert broken.decision is None
    assert broken.notes[0].startswith("The decision in the storage is not readable: ")
