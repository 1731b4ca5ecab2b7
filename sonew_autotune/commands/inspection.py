"""What is stored and why it is used or not: the answers of `show`, `check` and `explain`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from sonew import paths, tuned
from sonew.dispatch import Explanation, shipped_store_paths
from sonew.registry import BACKENDS
from sonew_autotune.commands.listing import Stored
from sonew_autotune.commands.render import config_text, evidence_text, verdict_json
from sonew_autotune.commands.text import printable
from sonew_autotune.store.audit import Finding, audit_store
from sonew_kernels.spec import SPECS, source_hash

USER: Final = "user store"
SHIPPED: Final = "shipped store"
NO_GPU: Final = ("interpreter", "none")  # what the GPU backends call the device where there is none
UNREAD: Final = {
    "off": ((USER, SHIPPED), "tuning='off' reads no store"),
    "pinned": ((USER,), "tuning='pinned' reads the shipped store only"),
}
"""Stores that a mode leaves unread, and the reason."""


@cache
def _environment(kernel: str) -> dict[str, str | int] | None:
    """What the kernel family's backend says of this machine, None for a family that is unknown here."""
    for row in BACKENDS:
        module = import_module(row.module)
        if kernel == module.KERNEL:
            environment: dict[str, str | int] = module.environment()
            return environment
    return None


def reasons_here(entry: tuned.Entry) -> tuple[str, ...]:
    """Why an entry would not be used on this machine for its own problem."""
    key = entry.key
    environment = _environment(key.kernel) if key.kernel in SPECS else None
    if environment is None:
        return (f"kernel {key.kernel!r} is not one of {list(SPECS)}",)
    here = replace(
        key,
        device=str(environment["device"]),
        capability=str(environment["capability"]),
        threads=int(environment["threads"]),
        toolchain=str(environment["toolchain"]),
        source_hash=source_hash(key.kernel),
    )
    reasons = tuned.judge("", entry, here, SPECS[key.kernel].rejects(entry.config.as_dict(), key.band)).reasons
    if SPECS[key.kernel].device == "gpu" and environment["device"] in NO_GPU:
        others = (reason for reason in reasons if not reason.startswith(("device is ", "capability is ")))
        return (f"no GPU can be used here, and this is for {key.capability}", *others)
    return reasons


def _store_files(path: Path) -> list[tuple[str, Path]]:
    """Every store, in the order of the look-up."""
    return [(USER, path), *((SHIPPED, shipped) for shipped in shipped_store_paths())]


def stored_entries(path: Path) -> tuple[list[Stored], list[str]]:
    """Every entry of the user's and the shipped stores with the reasons against its use here; and what could not be read."""
    stores = [tuned.read_store(name, file) for name, file in _store_files(path)]
    rows = [Stored(store=store.name, entry=entry, reasons=reasons_here(entry)) for store in stores for entry in store.entries]
    return rows, [line for store in stores for line in store.problems]


def _notes_here(entry: tuned.Entry) -> tuple[str, ...]:
    """Why a sound entry is not used here: outdated, or made for another machine."""
    reasons = reasons_here(entry)
    if not reasons:
        return ()
    stale = all(reason.startswith("stale: ") for reason in reasons)
    advice = "; sonew-autotune run makes it anew" if stale else ""
    return (f"not used on this machine: {'; '.join(reasons)}{advice}",)


def audit(path: Path) -> list[Finding]:
    """What `check` finds in the user's store and in the shipped ones."""
    return [finding for name, file in _store_files(path) for finding in audit_store(name, file, _notes_here)]


def _unread(explanation: Explanation, tuning: str) -> list[tuned.Verdict]:
    """Entries of the stores that the mode leaves unread, with that reason before the others."""
    unread, reason = UNREAD.get(tuning, ((), ""))
    key = explanation.key
    if key is None:
        return []
    return [
        replace(verdict, reasons=(reason, *verdict.reasons))
        for name, file in _store_files(paths.store_path())
        if name in unread
        for entry in tuned.read_store(name, file).entries
        if entry.key.kernel == key.kernel
        for verdict in [tuned.judge(name, entry, key, SPECS[key.kernel].rejects(entry.config.as_dict(), key.band))]
    ]


def _ordered(explanation: Explanation, tuning: str) -> list[tuned.Verdict]:
    """Every stored entry of the kernel, those that fit first, the best of them at the top."""
    return sorted([*explanation.verdicts, *_unread(explanation, tuning)], key=lambda v: (bool(v.reasons), v.rank))


def _beaten(verdict: tuned.Verdict, used: tuned.Verdict) -> str:
    """Why an entry that fits stands behind the one that is used."""
    if verdict.entry.kind != used.entry.kind:
        return f"it fits, but it is {verdict.entry.kind}, and a {used.entry.kind} one fits, too"
    if verdict.distance != used.distance:
        return f"it fits, but its sizes are {verdict.distance} steps away, those of the one used {used.distance}"
    return f"it fits as well, but the one used comes first ({used.store})"


def _fields(verdict: tuned.Verdict, key: tuned.Key) -> list[dict[str, Any]]:
    """Field by field: what is stored, what was looked up, and whether it allows the use."""
    entry, names = verdict.entry, [field.name for field in fields(tuned.Key)]
    return [
        {
            "field": name,
            "stored": getattr(entry.key, name),
            "wanted": getattr(key, name),
            "fits": tuned.field_fits(entry, key, name),
        }
        for name in names
    ]


def explanation_json(explanation: Explanation, tuning: str) -> dict[str, Any]:
    """`explain --json`."""
    plan, used, key = explanation.plan, tuned.best(explanation.verdicts), explanation.key
    return {
        "problem": asdict(plan.problem),
        "plan": {"backend": plan.backend, "config": plan.config.as_dict(), "provenance": plan.provenance},
        "backends": [{"backend": c.backend, "available": c.reason is None, "reason": c.reason} for c in explanation.candidates],
        "key": asdict(key) if key is not None else None,
        "stored": [
            {
                **verdict_json(verdict, used=verdict is used),
                "beaten": _beaten(verdict, used) if used is not None and verdict is not used and not verdict.reasons else None,
                "fields": _fields(verdict, key) if key is not None else [],
            }
            for verdict in _ordered(explanation, tuning)
        ],
        "problems": list(explanation.problems),
    }


def explanation_lines(explanation: Explanation, tuning: str) -> list[str]:
    """`explain` for people."""
    plan, used = explanation.plan, tuned.best(explanation.verdicts)
    problem, verdicts = plan.problem, _ordered(explanation, tuning)
    lines = [
        f"Problem: band {problem.band}, {problem.total} elements, {tuned.type_names(problem)} on {problem.device}, chain {problem.chain}",
        f"Backend: {plan.backend}",
        *(f"  {c.backend}: {'can step it' if c.reason is None else c.reason}" for c in explanation.candidates),
        f"Configuration: {config_text(plan.config.as_dict()) or '(nothing to tune)'}",
        f"  from: {plan.provenance}",
    ]
    if explanation.key is None:
        lines.append(f"Looked up: nothing, backend {plan.backend} has nothing to tune")
    else:
        lines.append(f"Looked up: {', '.join(f'{name}={value}' for name, value in asdict(explanation.key).items())}")
        lines.append(f"Stored entries of kernel {explanation.key.kernel!r}: {len(verdicts)}")
    for verdict in verdicts:
        lines += _verdict_lines(verdict, used)
    return [printable(line) for line in [*lines, *(f"Problem with a store: {line}" for line in explanation.problems)]]


def _verdict_lines(verdict: tuned.Verdict, used: tuned.Verdict | None) -> Sequence[str]:
    key = verdict.entry.key
    mark = "USED" if verdict is used else "not used"
    size = f"size 2^{key.total_log2}, median 2^{key.median_log2}, {verdict.distance} steps away"
    head = f"  {mark}: {verdict.store}, band {key.band}, {tuned.type_names(key)}, {size}; {evidence_text(verdict.entry)}"
    reasons = [f"    {reason}" for reason in verdict.reasons]
    if not reasons and used is not None and verdict is not used:
        reasons = [f"    {_beaten(verdict, used)}"]
    return [head, *reasons]
