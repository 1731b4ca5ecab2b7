"""Two compiled kernels beside one another: what differs in the machine code, in numbers and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sonew_autotune.compiler.kernel import Compiled
from sonew_autotune.compiler.stage_text import listing
from sonew_autotune.compiler.traits import TRAITS, Trait, Value

MACHINE_CODE: Final = ("sass", "amdgcn")
MINOR: Final = 0.5  # weights below it share a line


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A trait that differs; `weight` is how much it is likely to matter (`Trait.importance` times the relative change)."""

    name: str
    before: Value
    after: Value
    meaning: str
    weight: float

    @property
    def text(self) -> str:
        """The two values with their name."""
        return f"{self.name} {value_text(self.before)} -> {value_text(self.after)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What sets a compiled kernel apart from another one of the same name.

    Attributes:
        kernel: its name.
        identical: instruction for instruction the same machine code, with the same resources.
        changes: what differs, the most important first.
        same: what does not, by name.
    """

    kernel: str
    identical: bool
    changes: tuple[Change, ...]
    same: Mapping[str, Value]

    def lines(self) -> list[str]:
        """A line per change, the most important first, minor ones together; then what stayed. One line where the code is identical."""
        if self.identical:
            return [f"{self.kernel}: the machine code is identical, instruction for instruction"]
        lines = [f"{change.text}: {change.meaning}" for change in self.changes if change.weight >= MINOR]
        if minor := [change.text for change in self.changes if change.weight < MINOR]:
            lines.append(f"minor: {', '.join(minor)}")
        if stayed := [f"{name} {value_text(value)}" for name, value in self.same.items() if value]:
            lines.append(f"as before: {', '.join(stayed)}")
        return [f"{self.kernel}: {line}" for line in lines]

    def as_json(self) -> dict[str, Any]:
        """As it stands in a document; widths, the keys of some values, are strings there."""
        changes = [
            {"name": c.name, "before": _plain(c.before), "after": _plain(c.after), "meaning": c.meaning, "weight": round(c.weight, 3)}
            for c in self.changes
        ]
        same = {name: _plain(value) for name, value in self.same.items()}
        return {"kernel": self.kernel, "identical": self.identical, "changes": changes, "same": same}


def _plain(value: Value) -> Any:  # noqa: ANN401  # JSON
    if isinstance(value, Mapping):
        return {str(width): times for width, times in value.items()}
    return list(value) if isinstance(value, tuple) else value


def value_text(value: Value) -> str:
    """A value in a few words: widths as "4x14 8x2"."""
    if isinstance(value, Mapping):
        return " ".join(f"{width}x{times}" for width, times in value.items()) or "none"
    if isinstance(value, tuple):
        return "; ".join(value) or "none"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def explain_difference(default: Compiled, winner: Compiled) -> Difference:
    """What sets the second apart from the first.

    Args:
        default, winner: the same kernel under two configurations, for two targets or from two compilers, with their stages.
    """
    changes: list[Change] = []
    same: dict[str, Value] = {}
    for trait in TRAITS:
        before, after = trait.read(default), trait.read(winner)
        if before is None or after is None:
            continue
        if before == after:
            same[trait.name] = before
        else:
            changes.append(_change(trait, before, after))
    changes.sort(key=lambda change: -change.weight)
    return Difference(kernel=winner.kernel, identical=not changes and _same_code(default, winner), changes=tuple(changes), same=same)


def _change(trait: Trait, before: Value, after: Value) -> Change:
    old, new, meaning = _sizes(before), _sizes(after), ""
    if isinstance(before, Mapping) and isinstance(after, Mapping) and set(before) == set(after):
        old, new = sum(before.values()), sum(after.values())
        meaning = f"as wide, {new} of them per thread instead of {old}" if old != new else "as many, of other widths"
    relative = abs(new - old) / max(abs(old), abs(new)) if old != new else 0.0
    importance = trait.importance / 4 if meaning else trait.importance  # how many there are follows from the elements per thread
    return Change(
        name=trait.name,
        before=before,
        after=after,
        meaning=meaning or (trait.more if new > old else trait.less),
        weight=importance * relative,
    )


def _sizes(value: Value) -> float:
    """The number by which two values are ordered: the mean width of accesses, how many layouts."""
    if isinstance(value, Mapping):
        return sum(width * times for width, times in value.items()) / max(sum(value.values()), 1)
    return len(value) if isinstance(value, tuple) else value


def _same_code(one: Compiled, other: Compiled) -> bool:
    texts = [{stage: compiled.stages[stage] for stage in MACHINE_CODE if stage in compiled.stages} for compiled in (one, other)]
    code = [{stage: listing(text, stage) for stage, text in found.items()} for found in texts]
    return bool(code[0]) and code[0] == code[1]
