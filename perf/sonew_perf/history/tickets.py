"""What people said about regressions: `tickets.json` in the store, read without trust."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, get_args

from sonew.documents import parse_json, read_regular_file
from sonew.errors import InvalidConfigError
from sonew_perf.errors import RecordError
from sonew_perf.records.checks import LONGEST_NAME, SAFE_ID, Fields, expect_text, shown
from sonew_perf.records.files import SCHEMA_VERSION, holding, write_text
from sonew_perf.records.runs import FIX, TICKETS

State = Literal["open", "accepted", "fixed", "ignored"]
STATES: Final[tuple[State, ...]] = get_args(State)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What somebody said about a regression.

    Attributes:
        id: the regression's. state: "accepted" means that the new level is meant. author: who said so. date: when, ISO 8601 in UTC.
    """

    id: str
    state: State = "open"
    note: str = ""
    author: str = ""
    date: str = ""


def ticket_id(series_id: str, first_bad: str) -> str:
    """The regression of a series that begins with a run: two names that are fit for links, and that say where to look."""
    return f"{series_id}-{first_bad}"


def _state(value: str) -> State:
    for state in STATES:
        if state == value:
            return state
    msg = f"state {shown(value)} is not one of {list(STATES)}. Pass for example accepted."
    raise RecordError(msg)


def _ticket(fields: Fields) -> Ticket:
    state = _state(fields.text("state", "open"))
    return Ticket(
        id=fields.name("id"), state=state, note=fields.text("note", ""), author=fields.text("author", ""), date=fields.date("date", "")
    )


def read_tickets(folder: Path) -> dict[str, Ticket]:
    """The tickets of a store by id, none where there is no file; of two with one id the later in the file.

    Raises:
        RecordError: the file is not a list of tickets.
    """
    path = folder / TICKETS
    try:
        fields = Fields.of(TICKETS, parse_json(read_regular_file(path), strict=True))
        fields.expect_version(SCHEMA_VERSION)
        tickets = [_ticket(entry) for entry in fields.objects("entries")]
    except FileNotFoundError:
        return {}
    except (OSError, InvalidConfigError, RecordError) as error:
        msg = f"{path} is no list of tickets: {error}. Mend it or move it away."
        raise RecordError(msg) from error
    return {ticket.id: ticket for ticket in tickets}


def _checked(ticket: Ticket) -> Ticket:
    """The ticket, if what is written can be read again."""
    if SAFE_ID.fullmatch(ticket.id) is None:
        msg = f"{shown(ticket.id)} is no id of a regression. `sonew-perf regressions` lists them."
        raise RecordError(msg)
    expect_text("note", ticket.note)
    expect_text("author", ticket.author, longest=LONGEST_NAME)
    return ticket


def write_tickets(folder: Path, tickets: Mapping[str, Ticket]) -> None:
    """Replace the tickets of a store in one step.

    Raises:
        RecordError: a ticket is not valid, or the place cannot be written.
    """
    entries = [asdict(_checked(ticket)) for ticket in tickets.values()]
    write_text(folder / TICKETS, json.dumps({"schema_version": SCHEMA_VERSION, "entries": entries}, indent=1) + "\n", fix=FIX)


def set_ticket(folder: Path, identity: str, state: str, *, note: str = "", author: str = "", now: datetime | None = None) -> Ticket:
    """Say something about a regression, in place of what was said before; of writers at the same time none loses the other's.

    Raises:
        RecordError: the state or the id is not valid, or the tickets cannot be read or written.
    """
    date = (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
    ticket = _checked(Ticket(id=identity, state=_state(state), note=note, author=author, date=date))
    with holding(folder / "tickets.lock", fix=FIX):
        write_tickets(folder, read_tickets(folder) | {identity: ticket})
    return ticket
