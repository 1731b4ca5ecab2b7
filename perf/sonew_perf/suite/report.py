"""A run as tables for people: one per group, stored ratios beside the new ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rich.console import Group as Lines

from sonew_perf.records.files import Entry
from sonew_perf.suite.estimates import estimate_s
from sonew_perf.suite.groups import HOST, IMPORT, PHASE, STEP, TUNER, Group
from sonew_perf.suite.run import DONE
from sonew_perf.suite.stored import Stored
from sonew_perf.tables import MEBI, multiple, plain_table, titled

PEERS: Final[Mapping[str, tuple[str, ...]]] = {
    STEP: ("AdamW fused", "copy"),
    "jax": ("optax.adamw",),
    PHASE: ("copy",),
    HOST: ("AdamW fused", "AdamW fused bare"),
    IMPORT: ("torch", "jax"),
    TUNER: (),
}
HEADERS: Final = {"AdamW fused": "x AdamW", "AdamW fused bare": "x bare", "optax.adamw": "x adamw"}
OTHER: Final = "*"  # one letter: the tables have 80 columns
OTHER_NOTE: Final = "*: the newest committed number of another machine; this one has none yet."
LEAST_WITH_INTERVAL: Final = 0.1  # below it two decimals say nothing
NOTES: Final = (
    "ms: median; spread: 20th to 80th percentile over the median; x: median of the per-round ratios, of the first peer with its 95 % "
    "interval; stored: the same ratio in the newest run before this one on this machine, or where there is "
    "none, with a *, in the newest committed record of another one; MiB: peak memory."
)


def _peers(group: Group) -> tuple[str, ...]:
    peers = PEERS["jax" if group.what == STEP and group.framework == "jax" else group.what]
    return tuple(peer for peer in peers if group.what != IMPORT or peer == group.framework)


def _find(ratios: Mapping[str, object], peer: str) -> str | None:
    """The peer's name in an entry: the host's peers say their gradients behind it."""
    return next((name for name in ratios if name == peer or name.startswith(f"{peer}, ")), None)


def _milliseconds(entry: Entry) -> tuple[float, float]:
    """Median and spread."""
    if "median_ms" in entry:
        return entry["median_ms"], (entry["p80_ms"] - entry["p20_ms"]) / entry["median_ms"]
    return 1000 * entry["median"], (entry["p80"] - entry["p20"]) / entry["median"]


def _name(group: Group, entry: Entry) -> str:
    return f"{entry['case']}: {entry['kernel']}" if group.what == PHASE else str(entry["case"])


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= LEAST_WITH_INTERVAL else f"{ratio:.1g}"


def _cells(group: Group, entry: Entry, stored: Stored) -> list[str]:
    if entry.get("status", DONE) != DONE:
        return [_name(group, entry), entry["status"]]
    median, spread = _milliseconds(entry)
    cells = [_name(group, entry), f"{median:.4g}", f"{spread:.0%}"]
    for number, peer in enumerate(_peers(group)):
        name, before = _find(entry["against"], peer), _find(stored.ratios, peer)
        if name is None:
            cells += ["-", "-"]
        else:
            ratio = entry["against"][name]
            cells.append(_short(ratio["median"]) if number or ratio["median"] < LEAST_WITH_INTERVAL else multiple(ratio))
            cells.append("-" if before is None or name == entry["case"] else f"{_short(stored.ratios[before])}{OTHER * stored.elsewhere}")
    peak = entry.get("peak_bytes")
    return [*cells, "-" if peak is None else f"{peak / MEBI:.1f}"]


def group_table(group: Group, entries: Sequence[Entry], stored: Sequence[Stored]) -> Lines:
    """One row per case of a group."""
    headers = ["case", "ms", "spread"]
    for peer in _peers(group):
        headers += [HEADERS.get(peer, f"x {peer}"), "stored"]
    table = plain_table([*headers, "MiB"])
    marked = False
    for entry, before in zip(entries, stored, strict=True):
        ours = entry["case"].startswith("SONew") or entry["case"].startswith("sonew")
        cells = _cells(group, entry, before)
        marked |= any(cell.endswith(OTHER) for cell in cells)
        table.add_row(*cells, style="bold" if ours else None)
    return titled(group.name, table, OTHER_NOTE if marked else "")


def list_entries(groups: Sequence[Group], rounds: Callable[[Group], int]) -> list[Entry]:
    """What would be run: every group's name, estimated seconds and cases."""
    return [
        {
            "group": group.name,
            "seconds": round(estimate_s(group, rounds(group)), 1),
            "cases": list(dict.fromkeys(_name(group, case) for case in group.cases)),
        }
        for group in groups
    ]


def list_lines(entries: Sequence[Entry]) -> list[str]:
    """`list_entries` for people."""
    lines = []
    for entry in entries:
        lines += [f"{entry['group']}, about {entry['seconds']:.0f} s", f"    {'; '.join(entry['cases'])}"]
    return [*lines, f"{len(entries)} groups, about {sum(entry['seconds'] for entry in entries):.0f} s, each in a process of its own"]


def summary_lines(entries: Sequence[Entry]) -> list[str]:
    """How many results there are of each status, and why some are missing."""
    counts = Counter(entry.get("status", DONE) for entry in entries)
    reasons = Counter((entry["status"], entry["reason"]) for entry in entries if entry.get("status", DONE) != DONE)
    told = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    return [f"{len(entries)} results: {told}", *(f"{number} {status}: {reason}" for (status, reason), number in reasons.items())]
