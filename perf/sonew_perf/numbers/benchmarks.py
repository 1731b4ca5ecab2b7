"""What the training benchmark answers beside races, as blocks of a README: losses expected, ideas judged, low precision beside float32."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Final

from sonew_perf.errors import RecordError
from sonew_perf.numbers.record import Record
from sonew_perf.numbers.words import NONE, block, bold, facts, listed, paragraph, percent, table
from sonew_perf.records.files import Entry
from sonew_perf.records.results import TRAINING

NARROW: Final = "bf16-state"
SOUND: Final = 0.01  # how far the loss with narrow state may lie above that with float32 state


def by_label(records: Sequence[Record]) -> dict[str, list[Entry]]:
    """The training runs of some records by method, seeds ascending."""
    found: dict[str, list[Entry]] = {}
    for record in records:
        for entry in record.entries:
            if entry["kind"] == TRAINING:
                found.setdefault(entry["label"], []).append(entry)
    return {label: sorted(entries, key=lambda entry: entry["seed"]) for label, entries in found.items()}


def _told(records: Sequence[Record], command: str) -> str:
    entries = [entry for entries in by_label(records).values() for entry in entries]
    packages = [name for name in ("torch", "jax") if all(name in entry["machine"] for entry in entries)]
    quiet = [{name: value for name, value in entry.items() if name != "load_before"} for entry in entries]
    return f"`{command}` ({listed([record.link for record in records])}). {facts(quiet, packages)}."


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def epoch(*records: Record, number: int, expected: Mapping[str, tuple[float, float]], command: str) -> str:
    """The mean training loss of an epoch, method by method, beside what it must be.

    Args:
        number: of the epoch, from 1. expected: by method, without its framework: the loss and how far off it may be, relatively.
    """
    rows = []
    for label, entries in by_label(records).items():
        losses = [entry["losses"][number - 1] for entry in entries]
        loss, allowed = expected[label.removesuffix(", JAX")]
        off = statistics.fmean(losses) / loss - 1
        judged = f"{100 * off:+.1f} %" + ("" if abs(off) <= allowed else ", **outside**")
        rows.append((label, str(len(entries)), _spread(losses), f"{loss:g} ± {percent(allowed)}", judged))
    heads = ("method", "seeds", f"mean training loss of epoch {number}", "reference", "off by")
    return block(paragraph(_told(records, command)), table(heads, rows))


def ideas(*records: Record, plain: str, apart: Sequence[str] = (), command: str) -> str:
    """Whether an idea wins: each of its seeds below every seed of the plain method.

    Args:
        records: of the plain method and of the ideas. plain: the method that the others change. apart: methods of the records that do not.
    """
    found = {label: [entry["loss"] for entry in entries] for label, entries in by_label(records).items() if label not in apart}
    if plain not in found:
        msg = f"{[record.name for record in records]} have no method {plain!r}; they have {list(found)}. Name the plain method."
        raise RecordError(msg)
    best = min(found[plain])
    rows = []
    for label, losses in found.items():
        verdict = NONE if label == plain else "wins" if max(losses) < best else "dropped"
        change = statistics.fmean(losses) / statistics.fmean(found[plain]) - 1
        rows.append((label, _spread(losses), NONE if label == plain else f"{100 * change:+.1f} %", verdict))
    heads = ("method", "final loss, mean of the seeds (range)", f"against {plain}", "verdict")
    return block(paragraph(_told(records, command)), table(heads, rows))


def narrow_state(wide: Record, *narrow: Record, command: str) -> str:
    """The loss with bfloat16 state beside that with float32 state, seed by seed, and the columns that fell back.

    Args:
        wide: runs in float32. narrow: the same with bfloat16 state, with one gamma or another; those of other settings are left out.
    """
    theirs = {label: {entry["seed"]: entry for entry in entries} for label, entries in by_label([wide]).items()}
    rows = []
    for label, found in by_label(narrow).items():
        same = theirs[label.partition(",")[0]]
        entries = [entry for entry in found if entry["hyper"]["beta2"] == same[entry["seed"]]["hyper"]["beta2"]]
        if not entries or entries[0]["precision"] != NARROW:
            continue
        plain = [same[entry["seed"]] for entry in entries]
        ours, base = ([entry["loss"] for entry in runs] for runs in (entries, plain))
        apart = statistics.fmean(ours) / statistics.fmean(base) - 1
        judged = "within 1 %" if apart <= SOUND else "**not within 1 %**"
        rows.append((label, str(len(entries)), _spread(base), _spread(ours), f"{100 * apart:+.1f} %: {judged}", _fallen(entries)))
    heads = ("method", "seeds", "float32 state", "bfloat16 state", "apart", "columns that fall back in the last epoch, by layer")
    return block(paragraph(_told(narrow, command)), table(heads, rows))


def _fallen(entries: Sequence[Entry]) -> str:
    """Least and largest share of a layer's columns, weights only: mean of the seeds at the end."""
    layers = [entry["fallback"]["layers"] for entry in entries if entry["fallback"]]
    if not layers:
        return NONE
    ends = {name: statistics.fmean(one[name][-1] for one in layers) for name in layers[0] if name.endswith("weight")}
    low, high = min(ends, key=lambda name: ends[name]), max(ends, key=lambda name: ends[name])
    return f"{percent(ends[low], 1)} (`{low}`) to {percent(ends[high], 1)} (`{high}`)"


def pure(record: Record, *, command: str) -> str:
    """Runs in bfloat16 throughout: how many stayed finite, and where they ended."""
    rows = []
    for label, entries in by_label([record]).items():
        finite = [entry["loss"] for entry in entries if entry["loss"] is not None]
        rows.append((label, f"{len(finite)} of {len(entries)}", _spread(finite) if finite else NONE))
    heads = ("method", "seeds that stayed finite", "final loss, mean of the seeds (range)")
    return block(paragraph(_told([record], command)), table(heads, rows))


def settings(*records: Record, shown: Sequence[str], command: str) -> str:
    """Final losses by setting, a column per task and band.

    Args:
        records: one per task. shown: the settings that are compared, or other fields of an entry.
    """
    entries = [entry for found in by_label(records).values() for entry in found]
    columns = list(dict.fromkeys((entry["task"], entry["band"]) for entry in entries))
    cells: dict[tuple[object, ...], dict[tuple[str, int], list[float]]] = {}
    for entry in entries:
        row = cells.setdefault(tuple(entry["hyper"].get(name, entry.get(name)) for name in shown), {})
        row.setdefault((entry["task"], entry["band"]), []).append(float("inf") if entry["loss"] is None else entry["loss"])
    best = {column: min(statistics.fmean(row[column]) for row in cells.values() if column in row) for column in columns}
    rows = [
        (
            *map(_value, values),
            *(_setting_cell(row.get(column), best[column]) for column in columns),
        )
        for values, row in cells.items()
    ]
    return block(paragraph(_told(records, command)), table((*shown, *(f"{task}, band {band}" for task, band in columns)), rows))


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else "not given" if value is None else str(value)


def _setting_cell(losses: Sequence[float] | None, best: float) -> str:
    if losses is None:
        return NONE
    mean = statistics.fmean(losses)
    return bold(f"{mean:.3f}" if mean < 10 else f"{mean:.2f}", when=mean == best)
