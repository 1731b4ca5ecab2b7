"""What a compiled kernel takes, as cells of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sonew_autotune.compiler.resources import Resources

RESOURCE_HEADINGS: Final = ("registers", "spill bytes (stored+loaded)", "shared bytes", "loads (bytes x times)", "stores", "occupancy")
MOST: Final = 4  # classes of instructions that are shown


def _widths(widths: Mapping[int, int]) -> str:
    return " ".join(f"{width}x{times}" for width, times in widths.items()) or "-"


def resource_cells(used: Resources) -> list[str]:
    """Under `RESOURCE_HEADINGS`."""
    spills = f"{used.spill_store_bytes + used.spill_load_bytes}"
    widths = (_widths(used.load_widths), _widths(used.store_widths))
    return [str(used.registers), spills, str(used.shared_bytes), *widths, f"{used.occupancy:.0%}"]


def mix_text(mix: Mapping[str, int]) -> str:
    """The largest classes of an instruction mix, as shares."""
    total = sum(mix.values()) or 1
    largest = sorted(mix, key=lambda name: -mix[name])[:MOST]
    return ", ".join(f"{mix[name] / total:.0%} {name.replace('_', ' ')}" for name in largest)
