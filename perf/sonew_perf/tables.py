"""How numbers and tables are written for people, whatever was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sonew_perf.records.files import Entry

MEBI: Final = 2**20


def multiple(ratio: Mapping[str, float]) -> str:
    """A ratio with its interval."""
    return f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"


def plain_table(headers: Sequence[str]) -> Table:
    """A table narrow enough for a terminal of 80 columns: the first column is text, the others are numbers."""
    table = Table(box=SIMPLE_HEAD, padding=0)
    for index, header in enumerate(headers):
        table.add_column(header, justify="right" if index else "left")
    return table


def titled(title: str, table: Table, notes: str = "") -> Group:
    """The table under its title and above its notes, which a narrow table must not squeeze."""
    return Group(Text(title, style="bold"), table, *([Text(notes, style="dim")] if notes else []), Text())


def _configuration(config: Mapping[str, int]) -> str:
    return " ".join(f"{name}={value}" for name, value in config.items()) + ", " if config else ""


def plan_lines(named: Mapping[str, Sequence[Entry]]) -> list[str]:
    """For each name the distinct plans of its entries: backend, configuration and where it comes from."""
    return [
        line
        for name, entries in named.items()
        for line in dict.fromkeys(
            f"{name}: {plan['backend']}, {_configuration(plan['config'])}{plan['provenance']}"
            for entry in entries
            for plan in entry["plans"]
        )
    ]
