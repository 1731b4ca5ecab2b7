"""Stored entries chosen, ordered and shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich import box
from rich.table import Table

from sonew.errors import InvalidConfigError
from sonew.tuned import Entry, type_names
from sonew_autotune.commands.render import config_text, evidence_text
from sonew_autotune.commands.text import cell, printable
from sonew_autotune.problems import check_choice
from sonew_autotune.store.winners import short_name
from sonew_kernels.spec import SPECS, SUPPORTED_BANDS

KINDS: Final = ("measured", "static")
HEADINGS: Final = ("name", "store", "device", "band", "types", "size (log2)", "configuration", "evidence", "date", "usable here")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An entry where it lies.

    Attributes:
        store: "user store" or "shipped store". reasons: against its use on this machine, empty where it is usable.
    """

    store: str
    entry: Entry
    reasons: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its short name, the same in every store."""
        return short_name(self.entry)

    def as_json(self) -> dict[str, Any]:
        """As it stands in `show --json`."""
        head = {"name": self.name, "store": self.store, "usable": not self.reasons, "reasons": list(self.reasons)}
        return {**head, **self.entry.as_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which entries are meant; what is left empty lets all through.

    Attributes:
        bands: any of them. kernel, kind: exactly. device: part of the device's name or of its capability, whatever the case.
        usable: only what can be used on this machine.

    Raises:
        InvalidConfigError: a value that no entry can have.
    """

    bands: Sequence[int] = ()
    kernel: str | None = None
    device: str | None = None
    kind: str | None = None
    usable: bool = False

    def __post_init__(self) -> None:
        """Refuse what can only be a mistake."""
        for band in self.bands:
            check_choice("band", band, SUPPORTED_BANDS, "Pass for example --band 1.")
        if self.kernel is not None:
            check_choice("kernel", self.kernel, list(SPECS), "Pass for example --kernel cpu.")
        if self.kind is not None:
            check_choice("kind", self.kind, KINDS, "Pass for example --kind measured.")

    def takes(self, stored: Stored) -> bool:
        """Whether the entry is meant."""
        key, wanted = stored.entry.key, (self.device or "").lower()
        return (
            (not self.bands or key.band in self.bands)
            and self.kernel in (None, key.kernel)
            and (wanted in key.device.lower() or wanted in key.capability.lower())
            and self.kind in (None, stored.entry.kind)
            and not (self.usable and stored.reasons)
        )


def gain_of(entry: Entry) -> float:
    """Speed-up over the default that the evidence states (measured, or the model's); 0 where it states none."""
    try:
        return 1 / float(entry.evidence["ratio_to_default"]["median"])
    except (ArithmeticError, KeyError, TypeError, ValueError):
        return 0.0


def _size(stored: Stored) -> tuple[int, int]:
    return stored.entry.key.total_log2, stored.entry.key.median_log2


def _device(stored: Stored) -> tuple[str, str]:
    return stored.entry.key.capability, stored.entry.key.device


Order = Callable[[list[Stored]], list[Stored]]
ORDERS: Final[dict[str, Order]] = {
    "band": lambda rows: sorted(rows, key=lambda row: (row.entry.key.band, *_size(row), *_device(row))),
    "size": lambda rows: sorted(rows, key=lambda row: (*_size(row), row.entry.key.band, *_device(row))),
    "gain": lambda rows: sorted(rows, key=lambda row: gain_of(row.entry), reverse=True),
    "date": lambda rows: sorted(rows, key=lambda row: str(row.entry.evidence.get("date", "")), reverse=True),
    "device": lambda rows: sorted(rows, key=lambda row: (*_device(row), row.entry.key.band, *_size(row))),
}
"""Orders of `show`: numbers and names rise, the largest gain and the newest date come first."""


def choose(rows: Sequence[Stored], wanted: Filter, sort: str | None = None) -> list[Stored]:
    """The entries that are meant, in the order asked for, else as they are stored.

    Raises:
        InvalidConfigError: an unknown order.
    """
    chosen = [row for row in rows if wanted.takes(row)]
    if sort is None:
        return chosen
    check_choice("sort", sort, list(ORDERS), "Pass for example --sort gain.")
    return ORDERS[sort](chosen)


def find_named(rows: Sequence[Stored], name: str) -> list[Stored]:
    """The entry of a short name or of its beginning; in the user's and a shipped store there may be one each.

    Raises:
        InvalidConfigError: none or several; the message lists what there is.
    """
    found = [row for row in rows if name and row.name.startswith(name.lower())]
    names = sorted({row.name for row in found or rows})
    if not found or len(names) > 1:
        problem = "fits several entries" if found else "is the name of no entry here"
        listed = ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")
        msg = f"details={name!r} {problem}: {listed or '(nothing is stored)'}. Pass a name from the first column of sonew-autotune show."
        raise InvalidConfigError(msg)
    return found


def entries_table(rows: Sequence[Stored]) -> Table:
    """Stored entries as a table."""
    table = Table(title="Tuned configurations", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading, overflow="fold", no_wrap=heading == "name")
    for row in rows:
        key, evidence = row.entry.key, row.entry.evidence
        texts = (
            row.name,
            row.store.removesuffix(" store"),
            f"{key.capability} {key.device}",
            str(key.band),
            type_names(key),
            f"{key.total_log2} / {key.median_log2}",
            config_text(row.entry.config.as_dict()),
            evidence_text(row.entry),
            str(evidence.get("date", "-"))[:10],
            "yes" if not row.reasons else "; ".join(row.reasons),
        )
        table.add_row(*map(cell, texts))
    return table


def details_lines(row: Stored) -> list[str]:
    """Everything about one entry, a line each."""
    entry = row.entry
    lines = [
        f"{row.name}, {row.store}, {entry.kind}",
        f"Usable here: {'yes' if not row.reasons else 'no'}",
        *(f"  {reason}" for reason in row.reasons),
        f"Configuration: {config_text(entry.config.as_dict())}",
        "Key:",
        *(f"  {name}: {value}" for name, value in asdict(entry.key).items()),
        "Evidence:",
        *(f"  {line}" for line in json.dumps(dict(entry.evidence), indent=1).splitlines()[1:-1]),
    ]
    return [printable(line) for line in lines]
