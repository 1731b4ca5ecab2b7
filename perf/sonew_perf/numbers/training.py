"""What training over a grid of learning rates ends at, as blocks of a README."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

from sonew_perf.numbers.grid import BASELINE, BF16, OURS, by_method
from sonew_perf.numbers.record import Record
from sonew_perf.numbers.words import block, bold, distinct, facts, listed, number, paragraph, percent, rate, table, threads
from sonew_perf.records.files import Entry
from sonew_perf.training.summary import Cell, Curve

NAMES: Final = {OURS: "fp32 state", BF16: "bf16 state and direction"}


def _of(entries: Sequence[Entry], **wanted: object) -> list[Entry]:
    return [entry for entry in entries if all(entry[name] == value for name, value in wanted.items())]


def _loss(curve: Curve, cell: Cell) -> str:
    text = f"{cell.mean:.2f} ({min(cell.losses):.2f} to {max(cell.losses):.2f})"
    return bold(text, when=cell is curve.best and not curve.diverged)


def _apart(relative: float, other: str, decimals: int = 0) -> str:
    """A relative difference in words: 37 % below AdamW."""
    return f"{percent(abs(relative), decimals)} {'below' if relative < 0 else 'above'} {other}"


def _between(values: Sequence[float], decimals: int = 0) -> str:
    """A range in percent: 35 to 39 %."""
    return f"{100 * min(values):.{decimals}f} to {percent(max(values), decimals)}"


def _optima(found: Sequence[Curve]) -> str:
    outside = [curve.label for curve in found if not curve.inside]
    return f"The optimum of {listed(outside)} does not lie inside the grid" if outside else "Both optima lie inside the grid"


def _milliseconds(entries: Sequence[Entry], field: str) -> str:
    return number(statistics.median(1000 * entry[field] / entry["steps"] for entry in entries))


def training(record: Record) -> str:
    """Both methods over the grid, their distance, and what the optimizer took."""
    found = by_method(record.entries)
    mine, theirs = found[OURS], found[BASELINE]
    relative = mine.best.mean / theirs.best.mean - 1
    rows = [(rate(a.lr), _loss(mine, a), _loss(theirs, b)) for a, b in zip(mine.cells, theirs.cells, strict=True)]
    images = distinct(entry["images"]["count"] for entry in record.entries)
    seeds = distinct(sorted({entry["seed"] for entry in record.entries}))
    told = f"MNIST's {images} images, seeds {seeds} ({record.link}). {facts(record.entries)}. Loss: mean over the seeds, with their range:"
    apart = [(one / other - 1) * (-1 if relative < 0 else 1) for one, other in zip(mine.best.losses, theirs.best.losses, strict=True)]
    times = []
    for curve in (mine, theirs):
        entries = _of(record.entries, method=curve.method)
        times.append(f"{curve.label} {_milliseconds(entries, 'optimizer_s')} ms of a {_milliseconds(entries, 'wall_s')} ms step")
    plans = distinct(f"`{plan['provenance']}`" for entry in record.entries for plan in entry["plans"])
    verdict = (
        f"{_optima((mine, theirs))}. {mine.label} ends "
        f"**{_apart(relative, theirs.label)}** (seed by seed {_between(apart)}); the optimizer took, in the median, {listed(times)}. "
        f"SONew's plan: {plans}."
    )
    heads = ("lr", f"{mine.label}: loss", f"{theirs.label}: loss")
    return block(paragraph(told), table(heads, rows), paragraph(verdict))


def bfloat16(record: Record, before: Record, *, command: str) -> str:
    """bf16 state beside fp32 state over the grid; `before` is the fp32 record that it is held against."""
    found = by_method(record.entries)
    full, half = found[OURS], found[BF16]
    rows = []
    for a, b in zip(full.cells, half.cells, strict=True):
        shares = [entry["fallback"] for entry in _of(record.entries, method=BF16, lr=a.lr)]
        rows.append((rate(a.lr), _loss(full, a), _loss(half, b), _between(shares, 1)))
    told = f"`{command}` ({record.link}). {facts(record.entries)}. Loss: mean over the seeds, with their range:"
    heads = ("lr", *(f"{NAMES[method]}: loss" for method in (OURS, BF16)), "columns that fall back, bf16")
    return block(paragraph(told), table(heads, rows), paragraph(_bfloat16_verdict(record, before, full, half)))


def _bfloat16_verdict(record: Record, before: Record, full: Curve, half: Curve) -> str:
    known = {(entry["lr"], entry["seed"]): entry["loss"] for entry in _of(before.entries, method=OURS)}
    mine = _of(record.entries, method=OURS)
    equal = all(known[entry["lr"], entry["seed"]] == entry["loss"] for entry in mine)
    most = max(entry["fallback"] for entry in mine)
    fell = f"up to {percent(most, 1)}" if most else "none"
    steps = [f"{100 * (b.mean / a.mean - 1):+.1f} % at {rate(a.lr)}" for a, b in zip(full.cells, half.cells, strict=True)]
    times = [f"{_milliseconds(_of(record.entries, method=method), 'optimizer_s')} ms with {NAMES[method]}" for method in (BF16, OURS)]
    apart = _apart(half.best.mean / full.best.mean - 1, "fp32 state", 1)
    return (
        f"The losses with fp32 state {'equal' if equal else 'differ from'} those above, taken with {threads(before.first)}, and "
        f"{fell} of their columns fell back. bf16 state ends {apart}, each at its best rate; rate by rate it is {listed(steps)}. "
        f"Median optimizer time of a step: {listed(times)}."
    )


def gamma_0(record: Record) -> str:
    """What bf16 state came to with gamma 0, band by band."""
    told = []
    for band in sorted({entry["band"] for entry in record.entries}):
        ends = {}
        for method in (BF16, OURS):
            entries = sorted(_of(record.entries, method=method, band=band), key=lambda entry: float(entry["lr"]))
            ends[method] = listed([f"{entry['loss']:.0f}" for entry in entries])
        told.append(f"at band {band} bf16 state ended at {ends[BF16]} (fp32: {ends[OURS]})")
    rates = listed([rate(lr) for lr in sorted({entry["lr"] for entry in record.entries})])
    shares = [entry["fallback"] for entry in _of(record.entries, method=BF16)]
    seeds = distinct(sorted({entry["seed"] for entry in record.entries}))
    return block(
        paragraph(
            f"With `gamma=0`, seed {seeds}, at the rates {rates}: {', '.join(told)}, with {_between(shares)} of the columns falling back "
            f"({record.link}; {facts(record.entries)})."
        )
    )
