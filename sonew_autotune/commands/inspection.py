"""What is stored and why it is used or not: the answers of `show` and `explain`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from sonew import tuned
from sonew.dispatch import Explanation, shipped_store_paths
from sonew.registry import BACKENDS
from sonew_autotune.commands.render import evidence_text, verdict_json
from sonew_kernels.spec import SPECS, source_hash


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
    environment = _environment(key.kernel)
    if environment is None or key.kernel not in SPECS:
        return (f"kernel {key.kernel!r} is not one of {list(SPECS)}",)
    here = replace(
        key,
        device=str(environment["device"]),
        capability=str(environment["capability"]),
        threads=int(environment["threads"]),
        toolchain=str(environment["toolchain"]),
        source_hash=source_hash(key.kernel),
    )
    return tuned.judge("", entry, here, SPECS[key.kernel].rejects(entry.config.as_dict(), key.band)).reasons


def stored_entries(path: Path) -> tuple[list[tuple[str, tuned.Entry, tuple[str, ...]]], list[str]]:
    """Every entry of the user's and the shipped stores with the reasons against its use here; and what could not be read."""
    stores = [tuned.read_store("user store", path), *(tuned.read_store("shipped store", shipped) for shipped in shipped_store_paths())]
    rows = [(store.name, entry, reasons_here(entry)) for store in stores for entry in store.entries]
    return rows, [line for store in stores for line in store.problems]


def shown_json(rows: Sequence[tuple[str, tuned.Entry, tuple[str, ...]]]) -> list[dict[str, Any]]:
    """`show --json`."""
    return [{"store": store, "usable": not reasons, "reasons": list(reasons), **entry.as_json()} for store, entry, reasons in rows]


def _used(explanation: Explanation) -> tuned.Verdict | None:
    return tuned.best(explanation.verdicts)


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """`explain --json`."""
    plan, used = explanation.plan, _used(explanation)
    return {
        "problem": asdict(plan.problem),
        "plan": {"backend": plan.backend, "config": plan.config.as_dict(), "provenance": plan.provenance},
        "backends": [{"backend": c.backend, "available": c.reason is None, "reason": c.reason} for c in explanation.candidates],
        "key": asdict(explanation.key) if explanation.key is not None else None,
        "stored": [verdict_json(verdict, used=verdict is used) for verdict in explanation.verdicts],
        "problems": list(explanation.problems),
    }


def explanation_lines(explanation: Explanation) -> list[str]:
    """`explain` for people."""
    plan, used = explanation.plan, _used(explanation)
    problem = plan.problem
    lines = [
        f"Problem: band {problem.band}, {problem.total} elements, {tuned.type_names(problem)} on {problem.device}, chain {problem.chain}",
        f"Backend: {plan.backend}",
        *(f"  {c.backend}: {'can step it' if c.reason is None else c.reason}" for c in explanation.candidates),
        f"Configuration: {' '.join(f'{name}={value}' for name, value in plan.config.meta) or '(nothing to tune)'}",
        f"  from: {plan.provenance}",
    ]
    if explanation.key is not None:
        lines.append(f"Looked up: {', '.join(f'{name}={value}' for name, value in asdict(explanation.key).items())}")
        lines.append(f"Stored entries of kernel {explanation.key.kernel!r}: {len(explanation.verdicts)}")
    for verdict in sorted(explanation.verdicts, key=lambda v: (bool(v.reasons), v.rank)):
        key = verdict.entry.key
        mark = "USED" if verdict is used else "not used"
        size = f"size 2^{key.total_log2}, median 2^{key.median_log2}, {verdict.distance} steps away"
        lines.append(f"  {mark}: {verdict.store}, band {key.band}, {tuned.type_names(key)}, {size}; {evidence_text(verdict.entry)}")
        lines += [f"    {reason}" for reason in verdict.reasons]
        if not verdict.reasons and verdict is not used:
            lines.append("    it fits, but another entry is nearer, measured, or comes first")
    return [*lines, *(f"Problem with a store: {line}" for line in explanation.problems)]
