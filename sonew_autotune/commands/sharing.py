"""`export` and `import`: bundles that carry tuned configurations to other machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import typer

from sonew import paths
from sonew.errors import InvalidConfigError
from sonew.tuned import Entry, type_names
from sonew_autotune.commands import inspection
from sonew_autotune.commands.listing import Filter, Stored, choose
from sonew_autotune.commands.render import document, evidence_text, make_console
from sonew_autotune.commands.stored import warn_of
from sonew_autotune.commands.text import printable
from sonew_autotune.settings import Exit
from sonew_autotune.store.audit import entry_problems
from sonew_autotune.store.bundle import read_bundle, write_bundle
from sonew_autotune.store.merge import Action, Outcome, import_entries
from sonew_autotune.store.winners import short_name


def _title(entry: Entry) -> str:
    key = entry.key
    return f"{short_name(entry)} band {key.band}, {type_names(key)}, size 2^{key.total_log2}, {key.capability} {key.device}"


def _sound(rows: Sequence[Stored]) -> tuple[list[Entry], list[str]]:
    """What may travel, and a line for each entry that every import would refuse."""
    sound, left_out = [], []
    for row in rows:
        if problems := entry_problems(row.entry):
            left_out.append(f"left out: {_title(row.entry)}: {'; '.join(problems)}")
        else:
            sound.append(row.entry)
    return sound, left_out


def export_(path: Path, wanted: Filter, *, overwrite: bool, as_json: bool) -> Exit:
    """`sonew-autotune export`: the user's store or a part of it."""
    store = paths.store_path()
    if path.resolve() == store.resolve():
        msg = f"{path} is the store itself: nothing was written. Pass the path of another file."
        raise InvalidConfigError(msg)
    rows, problems = inspection.stored_entries(store)
    mine: dict[str, Stored] = {}
    for row in rows:
        if row.store == inspection.USER:
            mine.setdefault(row.name, row)  # of two with one name the first is the one in use
    chosen = choose(list(mine.values()), wanted)
    sound, left_out = _sound(chosen)
    warn_of([*problems, *left_out])
    if not sound:
        found = f"{len(mine)} entries, {len(chosen)} fit the filters, {len(left_out)} are not sound"
        msg = f"there is nothing to export in {store} ({found}). Pass fewer filters or another --store."
        raise InvalidConfigError(msg)
    made = write_bundle(path, sound, overwrite=overwrite)
    if as_json:
        head = {name: value for name, value in made.items() if name not in ("schema_version", "entries")}
        typer.echo(document([{"file": str(path), "count": len(sound), **head}]))
    else:
        line = f"{len(sound)} entries in {path}, sha256 {made['sha256']}. Take them in elsewhere:  sonew-autotune import {path.name}"
        make_console().print(printable(line), markup=False, soft_wrap=True)
    return Exit.CHECK_FAILED if problems or left_out else Exit.DONE


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    refused = outcome.action == "refused"
    reasons = () if refused else inspection.reasons_here(outcome.entry)
    head = {"name": short_name(outcome.entry), "action": outcome.action, "reason": outcome.reason}
    return {**head, "usable": not refused and not reasons, "reasons": list(reasons), **outcome.entry.as_json()}


def _outcome_lines(outcome: Outcome) -> list[str]:
    head = f"{outcome.action}: {_title(outcome.entry)}; {evidence_text(outcome.entry)}"
    lines = [f"{head} ({outcome.reason})" if outcome.reason else head]
    if outcome.action in ("added", "replaced") and (reasons := inspection.reasons_here(outcome.entry)):
        lines.append(f"  not used on this machine: {'; '.join(reasons)}")
    return [printable(line, longest=1000) for line in lines]


def _offered(path: Path | None, storage: str | None) -> tuple[Sequence[Entry], dict[str, str]]:
    """The entries of a bundle or of a shared storage, and what their evidence will say of where they come from."""
    if (path is None) == (storage is None):
        msg = "there is nothing to import, or too much: name a bundle or a --storage. Pass for example sonew-autotune import winners.json."
        raise InvalidConfigError(msg)
    if path is not None:
        bundle = read_bundle(path)
        return bundle.entries, {"bundle": bundle.sha256, "bundle_date": bundle.date}
    from sonew_autotune.search.storage import open_storage  # noqa: PLC0415  # loads Optuna, which a bundle does without
    from sonew_autotune.search.together import decided_entries  # noqa: PLC0415  # as above

    with open_storage(str(storage)) as opened:
        return decided_entries(opened), {"storage": opened.name}


def import_(path: Path | None, *, storage: str | None, replace_stored: bool, dry_run: bool, as_json: bool) -> Exit:
    """`sonew-autotune import`: all of a bundle or of a shared storage's results, or nothing where any of it is refused."""
    store, messages = paths.store_path(), make_console(stderr=True)
    entries, source = _offered(path, storage)

    def warn(line: str) -> None:
        messages.print(f"warning: {printable(line)}", style="bold red", markup=False, soft_wrap=True)

    outcomes = import_entries(
        entries,
        store=store,
        source=source,
        replace_stored=replace_stored,
        dry_run=dry_run,
        warn=warn,
    )
    counts = Counter(outcome.action for outcome in outcomes)
    summary = ", ".join(f"{counts[action]} {action}" for action in get_args(Action) if counts[action]) or "there are no results in it"
    written = not dry_run and not counts["refused"]
    if as_json:
        typer.echo(document([_outcome_json(outcome) for outcome in outcomes]))
    else:
        for line in (line for outcome in outcomes for line in _outcome_lines(outcome)):
            make_console().print(line, markup=False, soft_wrap=True)
        make_console().print(f"{summary}{f', in {store}' if written else '; nothing was written'}.", markup=False, soft_wrap=True)
    if counts["refused"]:
        messages.print(f"error: {counts['refused']} of {len(outcomes)} entries are not sound: nothing was imported.", soft_wrap=True)
        return Exit.WRONG_USE
    return Exit.DONE
