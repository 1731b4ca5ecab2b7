"""Taking in entries that were made elsewhere: what is wrong with any of them refuses them all, and what was measured here stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from sonew.errors import InvalidConfigError
from sonew.tuned import Entry, parse_entry
from sonew_autotune.store.audit import LONGEST_TEXT, entry_problems, is_origin, parse_date
from sonew_autotune.store.evidence import now
from sonew_autotune.store.winners import Identity, identity_of, identity_of_raw, read_document, update

HELD_BACK: Final = "another entry is refused"
ORIGIN: Final = "imported_from"  # in evidence: a list, one record for each time that the entry was taken in somewhere

Action = Literal["added", "replaced", "kept", "refused", "held back"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What becomes of one entry.

    Attributes:
        action: added; replaced (it takes a stored one's place); kept (the stored one); refused; held back (another one is refused).
        reason: why, "" for one that is added.
    """

    entry: Entry
    action: Action
    reason: str = ""


class _RefusedError(Exception):
    """Raised inside the lock to leave the store as it is."""


def _plain(entry: Entry) -> tuple[Any, ...]:
    """What makes two entries the same, wherever they have been."""
    return entry.key, entry.kind, entry.config, {name: value for name, value in entry.evidence.items() if name != ORIGIN}


def _newer(entry: Entry, than: Entry) -> bool:
    mine, other = parse_date(entry.evidence.get("date")), parse_date(than.evidence.get("date"))
    return mine is not None and (other is None or mine > other)


def _stored(raw_entries: Sequence[Any]) -> dict[Identity, Entry | None]:
    """What the store holds under each identity, None for what cannot be read."""
    found: dict[Identity, Entry | None] = {}
    for raw in raw_entries:
        if (identity := identity_of_raw(raw)) is not None:
            try:
                found[identity] = parse_entry(raw)
            except InvalidConfigError:
                found[identity] = None
    return found


def _decide(entry: Entry, stored: Mapping[Identity, Entry | None], *, replace_stored: bool) -> Outcome:
    measured = replace(entry, kind="measured")
    if entry.kind == "static" and identity_of(measured) in stored:
        return Outcome(entry=entry, action="kept", reason="there is a measured entry with this key, and a static one says less")
    if identity_of(entry) not in stored:
        return Outcome(entry=entry, action="added")
    here = stored[identity_of(entry)]
    if here is None:
        return Outcome(entry=entry, action="replaced", reason="the stored one is not readable")
    if _plain(here) == _plain(entry):
        return Outcome(entry=entry, action="kept", reason="it is stored already")
    if replace_stored:
        return Outcome(entry=entry, action="replaced", reason="--replace")
    if here.kind == "measured" and ORIGIN not in here.evidence:
        return Outcome(entry=entry, action="kept", reason="the stored one was measured here; pass --replace to replace it")
    if not _newer(entry, here):
        reason = f"the stored one of {str(here.evidence.get('date', 'no date'))[:40]} is as new or newer; pass --replace to replace it"
        return Outcome(entry=entry, action="kept", reason=reason)
    return Outcome(entry=entry, action="replaced", reason=f"the stored one is of {str(here.evidence.get('date', 'no date'))[:40]}")


def judge_entries(entries: Sequence[Entry], raw_entries: Sequence[Any], *, replace_stored: bool) -> tuple[Outcome, ...]:
    """What becomes of each entry beside what a store holds, in order; one that is refused refuses the others, too."""
    stored, seen = _stored(raw_entries), set[Identity]()
    outcomes = []
    for entry in entries:
        problems = entry_problems(entry)
        if identity_of(entry) in seen:
            problems.append("another entry before it has the same key and kind")
        seen.add(identity_of(entry))
        if problems:
            outcomes.append(Outcome(entry=entry, action="refused", reason="; ".join(problems)))
        else:
            outcomes.append(_decide(entry, stored, replace_stored=replace_stored))
    if any(outcome.action == "refused" for outcome in outcomes):
        return tuple(o if o.action == "refused" else Outcome(entry=o.entry, action="held back", reason=HELD_BACK) for o in outcomes)
    return tuple(outcomes)


def import_entries(
    entries: Sequence[Entry],
    *,
    store: Path,
    source: Mapping[str, str],
    replace_stored: bool = False,
    dry_run: bool = False,
    warn: Callable[[str], None],
) -> tuple[Outcome, ...]:
    """Take entries into a store, all that are wanted or none, in one write under the store's lock.

    A stored entry of the same key and kind stays where it was measured here or is as new; where a measured one has the same
    key, a static one stays out. If any entry is refused, nothing is written.

    Args:
        entries: parsed; their claims are checked here.
        store: the store's file.
        source: where they come from, short printable texts: written into each entry's evidence with the date of the import, and
            exported with it, so no password.
        replace_stored: put them in place of stored ones whatever their age; a measured one still keeps a static one out.
        dry_run: decide, write nothing.
        warn: told, in a line, about a corrupt store that had to be set aside.

    Returns:
        An outcome for each entry, in order.

    Raises:
        InvalidConfigError: the store cannot be used, as in `winners.update`; or `source` is no short texts.
        WriteError: the system refused; the old store is as it was.
    """
    record = {**source, "imported": now()}
    if not is_origin(record):
        msg = f"source={dict(source)!r:.400} is not allowed: it must be texts of 1 to {LONGEST_TEXT} printable characters. Shorten it."
        raise InvalidConfigError(msg)
    if dry_run:
        document, corrupt = read_document(store)
        if corrupt is not None:
            warn(f"{store} {corrupt}: it would be moved aside and a new store begun")
        return judge_entries(entries, document["entries"], replace_stored=replace_stored)
    outcomes: tuple[Outcome, ...] = ()

    def change(old: list[Any]) -> list[Any]:
        nonlocal outcomes
        outcomes = judge_entries(entries, old, replace_stored=replace_stored)
        if any(outcome.action == "refused" for outcome in outcomes):
            raise _RefusedError
        taken = {identity_of(o.entry): _marked(o.entry, record).as_json() for o in outcomes if o.action in ("added", "replaced")}
        return [*(raw for raw in old if identity_of_raw(raw) not in taken), *taken.values()]

    try:
        update(store, change, warn=warn)
    except _RefusedError:
        return outcomes
    return outcomes


def _marked(entry: Entry, record: Mapping[str, str]) -> Entry:
    evidence = {**entry.evidence, ORIGIN: [*entry.evidence.get(ORIGIN, []), dict(record)]}
    return replace(entry, evidence=evidence)
