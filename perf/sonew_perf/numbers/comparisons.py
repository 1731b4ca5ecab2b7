"""What comparisons of equals, and of a slowdown that was planted, say of the verdicts."""

from __future__ import annotations

from collections import Counter

from sonew_perf.numbers.record import Record
from sonew_perf.numbers.words import block, facts, paragraph, percent


def _seen(record: Record) -> str:
    smallest = [entry["detectable"] for entry in record.entries if entry["detectable"] is not None]
    return f"{percent(min(smallest), 1)} to {percent(max(smallest), 1)}"


def _verdicts(record: Record) -> Counter[str]:
    return Counter(entry["verdict"] for entry in record.entries)


def trust(equals: Record, planted: Record) -> str:
    """Whether equals were called changed, and whether a planted slowdown was called SLOWER."""
    same, slowed = _verdicts(equals), _verdicts(planted)
    one, two = dict(equals.about), dict(planted.about)
    found = f"{same['SLOWER'] + same['FASTER']} called changed, {same['SAME']} SAME, {same['UNSURE']} UNSURE"
    called = f"{slowed['SLOWER']} of {len(planted.entries)} called SLOWER, {slowed['UNSURE']} UNSURE, {slowed['SAME']} SAME"
    measured = f"{facts([one, two])}; load average before them {one['load']} and {two['load']}"
    text = (
        f"**How far to trust this?** One tree compared with itself, {len(equals.entries)} cases ({equals.link}): {found}; equals differed "
        f"by up to {percent(one['noise_floor'], 1)}, and slowdowns from {_seen(equals)} on, case by case, would have been found. With the "
        f"head slowed down by {percent(two['planted_slowdown'])} on purpose ({planted.link}): {called}. {measured}; "
        f"{one['seconds'] / 60:.0f} and {two['seconds'] / 60:.0f} minutes."
    )
    return block(paragraph(text))
