"""Records of `sonew-perf compare`, read without trust."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from sonew.documents import parse_json, read_regular_file
from sonew.errors import SonewError
from sonew_perf.dashboard.content import Row
from sonew_perf.dashboard.views.comparisons import VERDICTS
from sonew_perf.dashboard.views.plain import text
from sonew_perf.records.checks import SAFE_ID, Fields, is_number
from sonew_perf.records.files import SCHEMA_VERSION
from sonew_perf.records.listing import list_comparisons
from sonew_perf.records.model import Problem

MODES: Final = ("A/B", "A/A")
NUMBERS: Final = ("ratio", "low", "high", "p", "p_adjusted", "detectable", "base_ms", "head_ms")
HEAD_NUMBERS: Final = ("noise_floor", "tolerance", "fail_on", "seconds", "load", "planted_slowdown")
HEAD_COUNTS: Final = ("rounds", "launches")
SIDE_TEXTS: Final = ("spec", "title", "diff", "tuning", "store")
TEXTS: Final = ("case", "kernel", "framework", "workload", "dtype", "variant", "reason")


def comparison_files(store: Path, baselines: Path | None) -> list[Path]:
    """Files that hold comparisons: committed ones, and the store's."""
    return [Path(listed.path) for listed in list_comparisons(store, baselines)]


def read_comparisons(files: Iterable[Path]) -> tuple[list[Row], list[Problem]]:
    """(the records, oldest first, problems of the files that are none). Of two with one id the first is kept."""
    found: dict[str, Row] = {}
    problems = []
    for path in files:
        try:
            record = _record(parse_json(read_regular_file(path), strict=True))
            found.setdefault(record["comparison"]["id"], record)
        except (OSError, SonewError) as error:
            problems.append(Problem(str(path), str(error)))
    return sorted(found.values(), key=lambda record: (record["comparison"]["date"], record["comparison"]["id"])), problems


def _record(value: object) -> Row:
    """The record with the fields that are named here, and no other: what nobody checked reaches no page."""
    fields = Fields.of("comparison file", value)
    fields.expect_version(SCHEMA_VERSION)
    said = fields.inner("comparison")
    name = said.text("id")
    if SAFE_ID.fullmatch(name) is None:
        said.refuse("id", "letters, digits, '.', '_' and '-'")
    checked = {
        "id": name,
        "date": said.date("date"),
        "title": said.text("title", ""),
        "mode": said.choice("mode", MODES, MODES[0]),
        "base": _side(said.inner("base")),
        "head": _side(said.inner("head")),
        "machine": dict(said.inner("machine").scalars()),
        **{each: said.number(each) for each in HEAD_NUMBERS},
        **{each: said.count(each) for each in HEAD_COUNTS},
        "not_interleaved": said.flag("not_interleaved") or False,
        "command": said.text("command", ""),
    }
    return {"comparison": checked, "entries": [_entry(entry) for entry in fields.objects("entries")]}


def _side(fields: Fields) -> Row:
    return {
        **{name: fields.text(name, "") for name in SIDE_TEXTS},
        "commit": fields.commit("commit"),
        "commit_date": fields.date("commit_date", ""),
        "modified": fields.flag("modified"),
    }


def _entry(fields: Fields) -> Row:
    numbers: dict[str, Any] = {name: _any_number(fields, name) for name in NUMBERS}
    plans = fields.values.get("plans")
    return {
        **{name: fields.text(name, "") for name in TEXTS},
        **numbers,
        "verdict": fields.choice("verdict", VERDICTS, "NO-DATA"),
        "elements": fields.count("elements", 0),
        "band": fields.count("band"),
        "ratios": list(fields.numbers("ratios")),
        "launches": _counts(fields, "launches"),
        "confirmed": fields.flag("confirmed"),
        "plans": text(plans) if plans else "",
    }


def _counts(fields: Fields, name: str) -> list[int]:
    """A list of whole numbers."""
    values = fields.numbers(name)
    if not all(value.is_integer() for value in values):
        fields.refuse(name, "a list of whole numbers")
    return [int(value) for value in values]


def _any_number(fields: Fields, name: str) -> float | None:
    value = fields.values.get(name)
    if value is None:
        return None
    if not is_number(value):
        fields.refuse(name, "a number")
    return float(value)
