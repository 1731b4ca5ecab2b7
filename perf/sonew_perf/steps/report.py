"""One optimizer step as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group

from sonew_perf.records.files import Entry
from sonew_perf.tables import MEBI, multiple, plain_table, titled


def speed_table(entries: Sequence[Entry], headline: str) -> Group:
    """One row per case of `sonew-perf run`."""
    workload, rounds = entries[0]["workload"], len(entries[0]["samples_ms"])
    notes = (
        f"{headline}; load average before the run {entries[0]['load_before']}\n{rounds} interleaved rounds: median ms; spread, 20th to "
        "80th percentile over the median; multiples, median of the per-round ratios (AdamW: with its 95 % interval). B/elem: state. "
        "MiB: peak of parameters, gradients, state and scratch."
    )
    tensors = f" ({workload['tensors']} tensors)" if workload["tensors"] > 1 else ""
    title = f"One optimizer step: {workload['name']}{tensors}, {workload['elements']} {workload['dtype']} elements"
    table = plain_table(("case", "ms", "spread", "x fused AdamW", "x copy", "B/elem", "MiB"))
    for entry in entries:
        against, ours = entry["against"], entry["settings"].get("backend") == "auto"
        table.add_row(
            entry["case"],
            f"{entry['median_ms']:.2f}",
            f"{(entry['p80_ms'] - entry['p20_ms']) / entry['median_ms']:.0%}",
            multiple(against["AdamW fused"]) if "AdamW fused" in against else "-",
            f"{against['copy']['median']:.2f}" if "copy" in against else "-",
            f"{entry['state_bytes'] / workload['elements']:.1f}",
            "-" if entry["peak_bytes"] is None else f"{entry['peak_bytes'] / MEBI:.1f}",
            style="bold" if ours else None,
        )
    return titled(title, table, notes)


def phase_table(entries: Sequence[Entry]) -> Group | None:
    """Milliseconds per phase, for the cases that have phases of their own."""
    phased = [entry for entry in entries if entry["phases_ms"]]
    if not phased:
        return None
    table = plain_table(("case", *phased[0]["phases_ms"]))
    for entry in phased:
        table.add_row(entry["case"], *(f"{value:.3f}" for value in entry["phases_ms"].values()))
    return titled("Phases, each timed on its own (median ms)", table)
