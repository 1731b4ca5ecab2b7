"""A comparison for people: a table for the terminal, markdown for a pull request, and the sentences that both end with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Group
from rich.text import Text

from sonew_autotune.commands.text import printable
from sonew_perf.compare.record import AGAINST_ITSELF
from sonew_perf.compare.verdicts import Verdict
from sonew_perf.tables import plain_table, titled

STYLES: Final[Mapping[str, str]] = {"SLOWER": "bold red", "FASTER": "bold green", "UNSURE": "yellow", "NO-DATA": "dim"}
HEADINGS: Final = ("case", "verdict", "head/base", "95 % interval", "base ms", "sees from")
FIRST: Final = (Verdict.SLOWER, Verdict.UNSURE, Verdict.NO_DATA, Verdict.FASTER, Verdict.SAME)

Entry = Mapping[str, Any]


def _cells(entry: Entry) -> tuple[str, ...]:
    if entry["ratio"] is None:
        return printable(entry["case"]), entry["verdict"], "-", "-", "-", "-"
    interval = f"{entry['low']:.3f} to {entry['high']:.3f}"
    numbers = f"{entry['ratio']:.3f}", interval, f"{entry['base_ms']:.3f}", f"{100 * entry['detectable']:.1f} %"
    return printable(entry["case"]), entry["verdict"], *numbers


def by_importance(entries: Sequence[Entry]) -> list[Entry]:
    """What needs attention first, then the largest change."""
    return sorted(entries, key=lambda entry: (FIRST.index(entry["verdict"]), -abs((entry["ratio"] or 1) - 1)))


def counts(entries: Sequence[Entry]) -> dict[str, int]:
    """How many cases have each verdict, none left out."""
    found = Counter(entry["verdict"] for entry in entries)
    return {str(verdict): found[verdict] for verdict in Verdict}


def conclusion(record: Mapping[str, Any]) -> list[str]:
    """What came out, in sentences."""
    about, entries = record["comparison"], record["entries"]
    lines = [", ".join(f"{number} {verdict}" for verdict, number in counts(entries).items() if number)]
    seen = [entry["detectable"] for entry in entries if entry["detectable"] is not None]
    if seen:
        best, worst = 100 * min(seen), 100 * max(seen)
        lines.append(f"This comparison finds changes from {best:.1f} % (best case) or {worst:.1f} % (worst case) on, 19 times of 20.")
    if about["mode"] == AGAINST_ITSELF and about["noise_floor"] is not None:
        lines.append(f"Noise floor: equals differed by up to {100 * about['noise_floor']:.1f} %.")
    lines += [f"{printable(entry['case'])}: {printable(entry['reason'])}" for entry in entries if entry["reason"]]
    unconfirmed = [printable(entry["case"]) for entry in entries if entry["confirmed"] is False]
    if unconfirmed:
        lines.append(f"Looked changed, but a second measurement did not confirm it: {', '.join(unconfirmed)}.")
    return lines


def _note(record: Mapping[str, Any]) -> str:
    about = record["comparison"]
    order = "the base's samples before the head's in each round" if about["not_interleaved"] else "interleaved and shuffled"
    return (
        f"{about['machine']['device']} ({about['machine']['type']}), load average before it {about['load']}; {about['launches']} launches "
        f"of both sides' processes, {about['rounds']} rounds each, {order}, as many again for what was not settled; "
        f"{about['seconds']:.0f} s.\n"
        f"SAME: the interval lies within {100 * about['tolerance']:g} %. Sees from: the change found 19 times of 20."
    )


def table(record: Mapping[str, Any]) -> Group:
    """For the terminal."""
    drawn = plain_table(HEADINGS)
    for entry in by_importance(record["entries"]):
        name, verdict, *numbers = _cells(entry)
        drawn.add_row(Text(name), Text(verdict, style=STYLES.get(verdict, "")), *numbers)
    return titled(printable(record["comparison"]["title"]), drawn, _note(record))


def _plain(text: str) -> str:
    """Text that markdown takes for nothing else."""
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]<>|#" else letter for letter in printable(text))


def markdown(record: Mapping[str, Any]) -> str:
    """For a pull request."""
    about = record["comparison"]
    rows = [
        HEADINGS,
        ("---", "---", "--:", "--:", "--:", "--:"),
        *([_plain(c) for c in _cells(e)] for e in by_importance(record["entries"])),
    ]
    lines = [f"### {_plain(about['title'])}", "", *(f"| {' | '.join(row)} |" for row in rows), ""]
    lines += [
        *map(_plain, conclusion(record)),
        "",
        *map(_plain, _note(record).splitlines()),
        "",
        f"`{about['command'].replace('`', '')}`",
        "",
    ]
    return "\n".join(lines)
