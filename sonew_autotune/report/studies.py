"""A study as plain values, read without trust: what lies in a storage may come from anyone and from any version."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sonew.config import LaunchConfig
from sonew.errors import InvalidConfigError
from sonew.tuned import Entry, Key, parse_entry, type_names
from sonew_autotune.report.decision import LARGEST, Decision, read_config, read_decision, read_number
from sonew_autotune.search.results import Record, parse_record
from sonew_autotune.space import Space
from sonew_kernels.spec import SPECS

Axes = tuple[tuple[str, tuple[int, ...]], ...]
Shapes = tuple[tuple[int, ...], ...]

MOST_VALUES: Final = 256  # of all axes together: a space with more is none of ours

NAME: Final = re.compile(r"(?P<kernel>[a-z]+)-band(?P<band>\d{1,3})-(?P<dtype>\w+?)-(?P<case>.+)-[0-9a-f]{16}")
"""`search.targets.Target.study_name`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawStudy:
    """A study as its storage has it.

    Attributes:
        source: the journal or the storage, as shown. subject: what the study says of its problem, None where it says nothing.
        records: of the finished trials, in the study's order. running: trials under way.
        entry: what was decided in the same storage, None where nothing was.
    """

    name: str
    source: str
    subject: object = None
    records: Sequence[object] = ()
    running: int = 0
    entry: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study to be shown.

    Attributes:
        name, source, running: as in `RawStudy`.
        kernel, band, case: the kernel family, the off-diagonals and the name of the problem; "" or None where nothing says it.
        shapes: of the parameters. key: under which the winner is stored.
        default: the configuration to beat. axes: (name, values) of the space, in its order.
        records: one per configuration, in the order they finished. unreadable: trials whose record is none.
        decision: what was decided. notes: sentences on what is missing or was guessed.
    """

    name: str
    source: str
    kernel: str
    band: int | None
    case: str
    shapes: Shapes | None
    key: Key | None
    default: Mapping[str, int] | None
    axes: Axes
    records: tuple[Record, ...]
    running: int
    unreadable: int
    decision: Decision | None
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """The problem in a line."""
        parts = [f"band {self.band}" if self.band is not None else "", case_text(self.case), type_names(self.key) if self.key else ""]
        return ", ".join(filter(None, parts)) or self.name

    @property
    def space(self) -> int:
        """Valid points of the space, 0 where they are not known."""
        if self.decision is not None and self.decision.space:
            return self.decision.space
        if self.kernel not in SPECS or self.band is None or {name for name, _ in self.axes} != set(tunables(self.kernel)):
            return 0
        known = {tunable.name: tunable.values for tunable in SPECS[self.kernel].tunables}
        axes = tuple((name, tuple(value for value in values if value in known[name])) for name, values in self.axes)
        return len(Space(self.kernel, self.band, axes).points())


def case_text(case: str) -> str:
    """A case as it reads: a bare size is a number of elements."""
    return f"{int(case):,} elements" if case.isascii() and case.isdecimal() else case


def tunables(kernel: str) -> dict[str, str]:
    """Name and meaning of a kernel family's tunables."""
    return {tunable.name: tunable.meaning for tunable in SPECS[kernel].tunables} if kernel in SPECS else {}


def _is_sound(record: Record) -> bool:
    ratio, failure = record.ratio, record.failure
    if read_config(record.config) is None or not isinstance(record.pruned, bool) or (ratio is None) == (failure is None):
        return False
    if failure is not None:
        return isinstance(failure.kind, str) and isinstance(failure.message, str)
    numbers: list[object] = [ratio.median, ratio.low, ratio.high, record.median_ms, record.default_ms] if ratio is not None else []
    numbers += [*record.times_ms, *record.default_times_ms, *record.copy_times_ms]
    numbers += [] if record.roof_share is None else [record.roof_share]
    return all(read_number(number) is not None for number in numbers)


def read_record(raw: object) -> Record | None:
    """The record behind a trial's attribute, None where it is none."""
    if not isinstance(raw, Mapping):
        return None
    try:
        record = parse_record(raw)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    clocks = all(value == 0 or read_number(value) is not None for value in (record.seconds, record.finished))
    return record if clocks and _is_sound(record) else None


def _records(raws: Sequence[object]) -> tuple[tuple[Record, ...], int]:
    """(records, how many were unreadable): the first of each configuration, as the search itself counts them."""
    found = [read_record(raw) for raw in raws]
    sound = sorted((record for record in found if record is not None), key=lambda record: record.finished)
    unique: dict[LaunchConfig, Record] = {}
    for record in sound:
        unique.setdefault(LaunchConfig.of("", record.config), record)
    return tuple(unique.values()), sum(record is None for record in found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """What is known of a study's problem."""

    kernel: str = ""
    band: int | None = None
    dtype: str = ""
    case: str = ""
    shapes: Shapes | None = None
    key: Key | None = None
    default: Mapping[str, int] | None = None
    axes: Axes = ()


def _shapes(raw: object) -> Shapes | None:
    if not isinstance(raw, Sequence) or isinstance(raw, str) or not all(isinstance(shape, Sequence) for shape in raw):
        return None
    shapes = tuple(tuple(shape) for shape in raw)
    return shapes if all(type(length) is int for shape in shapes for length in shape) else None


def _axes(raw: object) -> Axes:
    if not isinstance(raw, Mapping):
        return ()
    axes = tuple((str(name), tuple(values)) for name, values in raw.items() if isinstance(values, Sequence) and values)
    values = [value for _, values in axes for value in values]
    return axes if len(values) <= MOST_VALUES and all(type(value) is int and abs(value) < LARGEST for value in values) else ()


def _stated(raw: object) -> _Subject | None:
    """The problem as the study itself states it, None where it does not, or not in a form that is understood."""
    if not isinstance(raw, Mapping):
        return None
    default, case = read_config(raw.get("default")), raw.get("case")
    if default is None or not isinstance(case, Mapping):
        return None
    try:
        key = parse_entry({"key": raw.get("key"), "kind": "measured", "config": default, "evidence": {}}).key
    except InvalidConfigError:
        return None
    return _Subject(
        kernel=key.kernel,
        band=key.band,
        dtype=key.param_dtype,
        case=str(case.get("name", "")),
        shapes=_shapes(case.get("shapes")),
        key=key,
        default=default,
        axes=_axes(raw.get("space")),
    )


def _named(name: str) -> _Subject:
    """What the study's name says of its problem."""
    match = NAME.fullmatch(name)
    if match is None:
        return _Subject()
    kernel, band = match["kernel"], int(match["band"])
    default = SPECS[kernel].default(band) if kernel in SPECS else None
    return _Subject(kernel=kernel, band=band, dtype=match["dtype"], case=match["case"], default=default)


def _axes_of(subject: _Subject, records: Iterable[Record]) -> Axes:
    """The space's axes, or where nothing states them the values that were tried, in the spec's order."""
    if subject.axes:
        return subject.axes
    tried: dict[str, set[int]] = {name: set() for name in tunables(subject.kernel)}
    for record in records:
        for name, value in record.config.items():
            tried.setdefault(name, set()).add(value)
    return tuple((name, tuple(sorted(values))) for name, values in tried.items() if values)


def _fits(entry: Entry, subject: _Subject) -> bool:
    """Whether a stored entry was made for this problem: other shapes of the same size bucket share its key."""
    evidence = entry.evidence
    if entry.kind != "measured" or entry.key.kernel != subject.kernel:
        return False
    if subject.shapes is not None and _shapes(evidence.get("shapes")) not in (None, subject.shapes):
        return False
    return bool(evidence.get("case", subject.case) == subject.case)


def _entry(raw: object, subject: _Subject, stored: Sequence[Entry]) -> tuple[Entry | None, str]:
    """(the decision's entry, a note on where it comes from): from the study's own storage, by its key, else by its name."""
    if raw is not None:
        try:
            return parse_entry(raw), ""
        except InvalidConfigError as error:
            return None, f"The decision in the storage is not readable: {error}."
    fitting = [entry for entry in stored if _fits(entry, subject)]
    if subject.key is not None:
        return next((entry for entry in reversed(fitting) if entry.key == subject.key), None), ""
    similar = [entry for entry in fitting if entry.key.band == subject.band and entry.key.param_dtype == subject.dtype]
    if len(similar) == 1:
        return similar[0], "The study does not say its key: the stored entry was found by the study's name."
    return None, "The study does not say its key, so its stored entry cannot be told from others." if similar else ""


def read_study(raw: RawStudy, stored: Sequence[Entry]) -> Study:
    """The study behind its raw form.

    Args:
        raw: as read. stored: entries of the user's store, among which the decision may be.
    """
    stated = _stated(raw.subject)
    subject = stated or _named(raw.name)
    records, unreadable = _records(raw.records)
    entry, note = _entry(raw.entry, subject, stored)
    decision = read_decision(entry) if entry is not None else None
    broken = f"{unreadable} trials carry a record that is not readable; they are left out." if unreadable else ""
    return Study(
        name=raw.name,
        source=raw.source,
        kernel=subject.kernel,
        band=subject.band,
        case=subject.case,
        shapes=subject.shapes or (_shapes(entry.evidence.get("shapes")) if entry is not None else None),
        key=subject.key or (entry.key if entry is not None else None),
        default=subject.default,
        axes=_axes_of(subject, records),
        records=records,
        running=raw.running,
        unreadable=unreadable,
        decision=decision,
        notes=tuple(filter(None, (note, broken))),
    )
