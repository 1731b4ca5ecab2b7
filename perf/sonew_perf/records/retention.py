"""Which runs of a store are dropped, and which never are: pinned and labelled ones, and those that something still speaks of."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sonew.documents import parse_json, read_regular_file
from sonew.errors import InvalidConfigError
from sonew_perf.errors import RecordError
from sonew_perf.process import ROOT
from sonew_perf.records.checks import escaped
from sonew_perf.records.index import Index
from sonew_perf.records.model import Run
from sonew_perf.records.runs import BASELINES, COMPARES, RUNS, TICKETS, read_pins
from sonew_perf.sources import git, text_of

CLOSED: Final = ("accepted", "fixed", "ignored")  # states of a ticket that keeps no run
WORD: Final = re.compile(r"[0-9A-Za-z._-]+")
LEFT_OVER_S: Final = 24 * 3600.0  # an unfinished file of a writer that is this old has no writer any more


@dataclass(frozen=True, slots=True)
class Drop:
    """A run that goes: its file, and what that takes on disk."""

    run: Run
    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a store would lose.

    Attributes:
        drops: by date. kept: run id to why it stays. left_over: unfinished files of writers that were killed.
    """

    drops: Sequence[Drop]
    kept: Mapping[str, str]
    left_over: Sequence[Path]


def tagged_commits(root: Path = ROOT) -> set[str]:
    """Commits of a checkout that carry a tag.

    Raises:
        RecordError: git is not here, or `root` is no checkout.
    """
    printed = git(root, "for-each-ref", "refs/tags", "--format=%(objectname) %(*objectname)")
    if printed is None:
        msg = f"the tags of {root} cannot be read: it is no checkout, or git is not here. Leave out --keep-tagged, or pin the runs."
        raise RecordError(msg)
    return set(text_of(printed).split())


def _texts(value: Any) -> Iterator[str]:  # noqa: ANN401  # any JSON
    """Every text in a JSON value, names of fields among them, but what a closed ticket says."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict) and value.get("state") not in CLOSED:
        for name, item in value.items():
            inside = list(_texts(item))
            if inside or not isinstance(item, dict):
                yield name
            yield from inside


def _named(folder: Path) -> dict[str, str]:
    """Every word that an open ticket or a comparison says, and who said it; run ids are among them.

    Raises:
        RecordError: one of these files cannot be read, so that nobody knows what it needs.
    """
    files = {folder / TICKETS: "an open ticket"} | {
        path: f"comparison {escaped(path.stem)}" for path in sorted((folder / COMPARES).glob("*.json"))
    }
    named: dict[str, str] = {}
    for path, who in files.items():
        try:
            content = parse_json(read_regular_file(path), strict=True)
        except FileNotFoundError:
            continue
        except (OSError, InvalidConfigError) as error:
            msg = f"{path} cannot be read ({error}), and the runs that it names must stay. Mend it or move it away."
            raise RecordError(msg) from error
        for text in _texts(content):
            for word in WORD.findall(text):
                named[word] = named[word.partition("-")[2]] = who  # a ticket's id is a series' and a run's
    return named


def plan_gc(folder: Path, *, keep_last: int, tagged: Collection[str] = (), baselines: Path | None = BASELINES) -> Plan:
    """What may go from a store. Committed records and files that are no records never do.

    Args:
        folder: the store's. keep_last: newest runs that stay, of each machine. tagged: commits whose runs stay.
        baselines: folder of the committed records.

    Raises:
        RecordError: pins, tickets or comparisons cannot be read.
    """
    pins, named = read_pins(folder), _named(folder)
    runs = [run for run in Index.open(folder, baselines).runs() if run.origin == "store"]
    newest: dict[str, list[str]] = {}
    for run in reversed(runs):
        newest.setdefault(run.machine.id, []).append(run.id)
    last = {name for names in newest.values() for name in names[:keep_last]}
    kept: dict[str, str] = {}
    drops = []
    for run in runs:
        if run.id in pins:
            kept[run.id] = "pinned"
        elif run.label:
            kept[run.id] = "labelled"
        elif run.id in named:
            kept[run.id] = f"named by {named[run.id]}"
        elif run.commit in tagged:
            kept[run.id] = "its commit is tagged"
        elif run.id in last:
            kept[run.id] = f"among the last {keep_last} of its machine"
        else:
            path = Path(run.path)
            drops.append(Drop(run, path, path.stat().st_size if path.exists() else 0))
    return Plan(drops, kept, list(_left_over(folder)))


def _left_over(folder: Path) -> Iterator[Path]:
    for path in sorted((folder / RUNS).glob(".*.tmp")):
        if path.is_file() and not path.is_symlink() and time.time() - path.stat().st_mtime > LEFT_OVER_S:
            yield path


def apply_gc(plan: Plan) -> None:
    """Remove what the plan names. Call it while nobody pins (`runs.changing`).

    Raises:
        RecordError: a file cannot be removed; those before it are gone.
    """
    for path in [*(drop.path for drop in plan.drops), *plan.left_over]:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            msg = f"{path} cannot be removed: {error}. Make its folder writable."
            raise RecordError(msg) from error
