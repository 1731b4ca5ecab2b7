"""JAX's times as a table and as a record's entries."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Group

from sonew_perf.records.files import Entry
from sonew_perf.tables import MEBI, multiple, plain_table, titled

KIND: Final = "jax step time"
SHARED: Final = ("workload", "machine", "load_before", "date")


def entries_of(result: dict[str, Any]) -> list[Entry]:
    """An entry of a record per case that ran."""
    shared = {"kind": KIND} | {name: result[name] for name in SHARED}
    return [shared | entry for entry in result["entries"]]


def headline(machine: dict[str, str | int]) -> str:
    """The description in one line."""
    versions = ", ".join(f"{name} {machine[name]}" for name in ("sonew", "jax", "jaxlib", "optax", "python"))
    return f"{machine['device']} ({machine['type']}), {machine['threads']} CPU threads, {versions}"


def jax_table(result: dict[str, Any]) -> Group:
    """One row per case that ran, a line per case that did not."""
    workload, baseline = result["workload"], result["baseline"]
    table = plain_table(("case", "ms", "spread", f"x {baseline}", "B/elem", "MiB"))
    for entry in result["entries"]:
        against = entry["against"].get(baseline)
        table.add_row(
            entry["case"],
            f"{entry['median_ms']:.3g}",
            f"{(entry['p80_ms'] - entry['p20_ms']) / entry['median_ms']:.0%}",
            "-" if against is None else multiple(against),
            f"{entry['state_bytes'] / workload['elements']:.1f}",
            f"{entry['peak_bytes'] / MEBI:.1f}",
        )
    rounds = len(result["entries"][0]["samples_ms"]) if result["entries"] else 0
    notes = [
        f"{headline(result['machine'])}; load average before the run {result['load_before']}",
        f"{rounds} interleaved rounds: median ms; spread, 20th to 80th percentile over the median; multiple, median of the per-round",
        "ratios with its 95 % interval. B/elem: state. MiB: what XLA assigns to a step: arguments, results, temporaries.",
        *(f"{case}: not measured ({reason})" for case, reason in result["failures"].items()),
    ]
    leaves = f" ({workload['tensors']} leaves)" if workload["tensors"] > 1 else ""
    title = f"One jitted step: {workload['name']}{leaves}, {workload['elements']} {workload['dtype']} elements"
    return titled(title, table, "\n".join(notes))
