from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sonew_perf.errors import RecordError
from sonew_perf.history.tickets import STATES, Ticket, read_tickets, set_ticket, ticket_id

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def test_a_store_without_the_file_has_no_tickets(tmp_path: Path) -> None:
    assert read_tickets(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("state", STATES)
def test_what_was_said_is_read_again(tmp_path: Path, state: str) -> None:
    identity = ticket_id("0123456789ab", "20260101T000000Z-00000001")
    said = set_ticket(tmp_path / "store", identity, state, note="meant: see #7 <b>\x1b[31m\n", author="Ada \N{SNOWMAN}", now=NOW)
    assert said == Ticket(
        id=identity, state=said.state, note="meant: see #7 <b>\x1b[31m\n", author="Ada \N{SNOWMAN}", date="2026-03-04T05:06:07+00:00"
    )
    assert said.state == state
    assert read_tickets(tmp_path / "store") == {identity: said}


def test_the_last_word_counts_and_other_tickets_stay(tmp_path: Path) -> None:
    set_ticket(tmp_path, "a-1", "ignored", now=NOW)
    set_ticket(tmp_path, "b-1", "open", note="look", now=NOW)
    set_ticket(tmp_path, "a-1", "fixed", author="Bo", now=NOW)
    assert {name: (ticket.state, ticket.note, ticket.author) for name, ticket in read_tickets(tmp_path).items()} == {
        "a-1": ("fixed", "", "Bo"),
        "b-1": ("open", "look", ""),
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "expected an object"),
        ("{", "Expecting"),
        ('{"schema_version": 2, "entries": []}', "schema_version"),
        ('{"schema_version": 1, "entries": {}}', "a list"),
        ('{"schema_version": 1, "entries": [7]}', "an object"),
        ('{"schema_version": 1, "entries": [{"state": "open"}]}', "id"),
        ('{"schema_version": 1, "entries": [{"id": "<script>"}]}', "printable"),
        (
            '{"schema_version": 1, "entries": [{"id": "a", "state": "gone"}]}',
            "'gone' is not one of ['open', 'accepted', 'fixed', 'ignored']",
        ),
        ('{"schema_version": 1, "entries": [{"id": "a", "note": 5}]}', "text"),
        ('{"schema_version": 1, "entries": [{"id": "a", "date": "yesterday"}]}', "a date"),
        ('{"schema_version": 1, "schema_version": 1, "entries": []}', "twice"),
        ('{"schema_version": 1, "entries": [{"id": "a", "note": NaN}]}', "NaN"),
        ('{"schema_version": 1, "entries": [{"id": "a", "note": "\\ud800"}]}', "half of a character"),
        ("[" * 100 + "]" * 100, "nested"),
    ],
)
def test_a_file_that_is_no_list_of_tickets_is_an_error_that_names_it(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "tickets.json"
    path.write_text(content)
    with pytest.raises(RecordError) as error:
        read_tickets(tmp_path)
    assert str(path) in str(error.value)
    assert said in str(error.value)
    with pytest.raises(RecordError):
        set_ticket(tmp_path, "a-1", "open")
    assert path.read_text() == content  # what a person may want to mend is not written over


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tickets.json")
    with pytest.raises(RecordError, match="no regular file"):
        read_tickets(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"identity": "../up"}, "no id of a regression"),
        ({"identity": ""}, "no id of a regression"),
        ({"state": "gone"}, "is not one of"),
        ({"author": "x" * 301}, "301 characters"),
        ({"note": "x" * 20_001}, "20001 characters"),
        ({"note": "caf\udce9"}, "no UTF-8"),
        ({"author": "\ud800"}, "no UTF-8"),
    ],
)
def test_nothing_is_written_that_could_not_be_read(tmp_path: Path, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(RecordError, match=said):
        set_ticket(tmp_path, **{"identity": "a-1", "state": "open", **arguments})
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_one_that_people_can_read(tmp_path: Path) -> None:
    set_ticket(tmp_path, "a-1", "accepted", note="new default", author="Ada", now=NOW)
    entry = {"id": "a-1", "state": "accepted", "note": "new default", "author": "Ada", "date": "2026-03-04T05:06:07+00:00"}
    assert json.loads((tmp_path / "tickets.json").read_text()) == {"schema_version": 1, "entries": [entry]}


def test_a_place_that_cannot_be_written_is_an_error_that_names_the_fix(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(RecordError, match="Pass --store"):
        set_ticket(tmp_path / "store", "a-1", "open")
