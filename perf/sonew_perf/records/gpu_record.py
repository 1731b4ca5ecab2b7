"""The record of `sonew-perf gpu` as the entries of a plain record: its timing units hold such entries, the rest has its status."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sonew_perf.records.checks import Fields
from sonew_perf.records.files import Entry

KIND: Final = "gpu run"
FRAMEWORK_KINDS: Final[Mapping[str, str]] = {"bench": "step time", "models": "step time", "jax": "jax step time"}
BACKENDS: Final[Mapping[str, str]] = {"Triton": "triton", "XLA": "reference"}
STATUSES: Final = ("done", "failed", "unfinished")
CASE: Final = re.compile(r"(?P<family>.*?)( band (?P<band>\d{1,9}))?(?P<state> bf16)?(, (?P<way>[^,]*))?", re.DOTALL)


def settings_of_case(case: str) -> dict[str, Any]:
    """The settings that a case's name says, for one that failed before it could state them: "SONew band 1 bf16, graph"."""
    found = CASE.fullmatch(case)
    if found is None:
        return {}
    band, state, way = found["band"], found["state"], found["way"]
    settings: dict[str, Any] = {} if band is None else {"band": int(band)}
    if way in BACKENDS:
        return settings | {"backend": BACKENDS[way]}
    return settings | ({} if way is None else {"way": way}) | {"state": "float32" if state is None else "bfloat16"}


def beside(unit: str, settings: Mapping[str, Any]) -> str:
    """With what a case was timed, where its unit is not the one that is there for it: times depend on what takes turns.

    Fused AdamW takes part in the units "64 Mi, band 1" and "64 Mi, band 2", and SONew's band 1 in "64 Mi, peers" beside its own.
    """
    tail = unit.partition(", ")[2]
    own = f"band {settings.get('band')}"
    return "" if tail in ("", own, f"{own} {settings.get('state')}") else tail


def machine_of_record(document: Fields) -> dict[str, Any]:
    """The device as other records describe theirs, with the versions among its details."""
    device, versions = document.inner("device"), document.inner("versions").scalars()
    told = device.scalars() | {f"clock {name}": value for name, value in device.inner("clocks").scalars().items()}
    return {**versions, **told, "device": device.name("name"), "threads": 0}


def _timed(unit: Fields, stage: str, machine: Mapping[str, Any]) -> Iterator[Entry]:
    """The cases of a timing unit that ran, and those that failed."""
    result, name = unit.inner("result"), unit.name("unit")
    shared: Entry = {"kind": FRAMEWORK_KINDS[stage], "workload": dict(result.inner("workload").values)}
    shared |= {"machine": dict(result.inner("machine").values) or dict(machine), "date": unit.values.get("date")}
    for entry in result.objects("entries"):
        settings = dict(entry.inner("settings").values)
        place = beside(name, settings) if stage != "jax" else ""
        yield {**shared, **entry.values, "settings": settings | ({"beside": place} if place else {})}
    failures = result.inner("failures")
    for case in failures.values:
        settings = settings_of_case(case)
        place = beside(name, settings) if stage != "jax" else ""
        told: Entry = {"case": case, "settings": settings | ({"beside": place} if place else {}), "status": "failed"}
        yield {**shared, **told, "reason": failures.text(case)}


def flatten(document: Fields) -> list[Entry]:
    """An entry per timed case, and one for every unit that failed or is unfinished as a whole: kernel is its stage, case its name.

    Raises:
        RecordError: the record is not one of a GPU.
    """
    machine = machine_of_record(document)
    entries: list[Entry] = []
    for unit in document.objects("entries"):
        stage, status = unit.name("stage"), unit.choice("status", STATUSES, "done")
        cases = list(_timed(unit, stage, machine)) if stage in FRAMEWORK_KINDS and unit.inner("result").values.get("workload") else []
        if not cases and status != "done":
            told = {"status": "failed" if status == "failed" else "skipped", "reason": unit.text("reason", "")}
            case = {"kind": stage, "case": unit.name("unit"), "unit": "s", "machine": machine, "date": unit.values.get("date")}
            cases = [case | told]
        entries += cases
    warning = document.text("not_quotable", "")
    return [entry | ({"not_quotable": warning} if warning else {}) for entry in entries]


def about(document: Fields, entries_seconds: float) -> dict[str, Any]:
    """The run, as a plain record says it."""
    sources = document.inner("sources")
    return {
        "date": document.date("date"),
        "command": document.text("command", ""),
        "commit": sources.commit("commit"),
        "modified": sources.flag("modified"),
        "seconds": entries_seconds,
        "machine": machine_of_record(document),
    }
