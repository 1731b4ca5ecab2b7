"""Checks of what tuning has left: stores, outdated entries, targets that never ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from sonew_autotune.health.system import Line, System


def check_stores(system: System) -> Iterator[Line]:
    """Whether the stores can be read, and what of them is used here."""
    stored = system.stored()
    for problem in stored.problems:
        yield Line(level="problem", text=problem, fix="sonew-autotune check tells more")
    usable = sum(not reasons for _, reasons in stored.entries)
    stale = sum(bool(reasons) and all(reason.startswith("stale: ") for reason in reasons) for _, reasons in stored.entries)
    others = len(stored.entries) - usable - stale
    text = f"{len(stored.entries)} stored entries: {usable} for this machine as it is, {others} for others"
    if not stored.entries:
        yield Line(level="note", text="nothing is tuned yet: the analytic defaults are used", fix="sonew-autotune run")
    elif usable:
        yield Line(level="ok", text=text)
    else:
        yield Line(level="note", text=f"{text}: the analytic defaults are used", fix="sonew-autotune run")
    if stale:
        text = f"{stale} entries are outdated: the compiler or the kernels have changed since"
        yield Line(level="note", text=text, fix="sonew-autotune run makes them anew")


def check_targets(system: System) -> Iterator[Line]:
    """Which GPUs the kernels ran on, by the stored measurements, and for which they were only ever compiled."""
    entries = [entry for entry, _ in system.stored().entries]
    measured = Counter(entry.key.capability for entry in entries if entry.kind == "measured")
    static = Counter(entry.key.capability for entry in entries if entry.kind == "static")
    wanted = list(dict.fromkeys((*system.targets, *sorted(static))))
    for target in wanted:
        if measured[target]:
            yield Line(level="ok", text=f"{target} ran: {measured[target]} measured entries")
    if never := [f"{target} ({static[target]} static entries)" for target in wanted if not measured[target]]:
        text = f"only ever compiled, never run, as far as the stores know: {', '.join(never)}"
        yield Line(level="note", text=text, fix="on such a GPU: sonew-autotune run, then export, and import the bundle here")
