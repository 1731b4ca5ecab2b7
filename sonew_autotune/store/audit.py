"""What is wrong with a stored entry or a store file: the one list of rules for `check`, `export` and `import`."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

from sonew.backends.cpu_torch import ISAS
from sonew.backends.triton_limits import STATE_DTYPES
from sonew.config import DIRECTION_DTYPES
from sonew.documents import DocumentError, UnreadableFileError, parse_json, read_regular_file
from sonew.errors import InvalidConfigError
from sonew.tuned import ANY_DEVICE, NOT_A_STORE, SCHEMA_VERSION, Entry, Key, is_known_schema, parse_entry
from sonew_autotune.compiler.targets import parse_target
from sonew_autotune.store.winners import Identity, identity_of
from sonew_kernels.spec import SPECS, STORAGE_BYTES

LONGEST_TEXT: Final = 200  # characters of a key's field
LARGEST_NUMBER: Final = 1e15
LARGEST_LOG2: Final = 63
MOST_THREADS: Final = 4096
CLOCK_SKEW: Final = timedelta(days=1)

CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "entry": ("table", "direct"),
    "chain": ("tensor", "row", "block"),
    "param_dtype": tuple(STORAGE_BYTES),
    "grad_dtype": tuple(STORAGE_BYTES),
    "state_dtype": STATE_DTYPES,
    "direction_dtype": DIRECTION_DTYPES,
}
CPU_CAPABILITIES: Final = (*ISAS, "generic")
SOURCE_HASH: Final = re.compile(r"[0-9a-f]{16}")

Status = Literal["ok", "wrong", "unreadable"]


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER  # false for a NaN


def _positive(value: object) -> bool:
    return _number(value) and value > 0  # type: ignore[operator]  # a number


def _at_least_zero(value: object) -> bool:
    return _number(value) and value >= 0  # type: ignore[operator]  # a number


def _count(value: object) -> bool:
    return isinstance(value, int) and _at_least_zero(value)


def _ratio(value: object) -> bool:
    if not isinstance(value, dict) or not all(_positive(value.get(name)) for name in ("low", "median", "high")):
        return False
    return bool(value["low"] <= value["median"] <= value["high"])


def _text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_TEXT and value.isprintable()


def _versions(value: object) -> bool:
    return isinstance(value, dict) and bool(value) and all(_text(name) and _text(version) for name, version in value.items())


def parse_date(value: object) -> datetime | None:
    """The date of evidence, None for what is none."""
    try:
        return datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) if isinstance(value, str) else None
    except ValueError:
        return None


def _date(value: object) -> bool:
    date = parse_date(value)
    return date is not None and date <= datetime.now(UTC) + CLOCK_SKEW


def is_origin(value: object) -> bool:
    """Whether this says where an entry came from: names and short printable texts."""
    return isinstance(value, dict) and all(_text(name) and _text(text) for name, text in value.items())


def _origins(value: object) -> bool:
    return isinstance(value, list) and all(map(is_origin, value))


Rule = tuple[str, Callable[[object], bool], str]
COMMON_EVIDENCE: Final[tuple[Rule, ...]] = (
    ("result", _text, "a short text"),
    ("ratio_to_default", _ratio, "positive numbers low <= median <= high"),
    ("versions", _versions, "names and versions"),
    ("date", _date, "a date such as 2026-11-27T12:00:00Z, not in the future"),
)
EVIDENCE: Final[Mapping[str, tuple[Rule, ...]]] = {
    "measured": (
        *COMMON_EVIDENCE,
        ("median_ms", _positive, "a positive number"),
        ("spread", _at_least_zero, "a number >= 0"),
        ("samples.default.median_ms", _positive, "a positive number"),
        ("ratio_to_adamw", _ratio, "positive numbers low <= median <= high"),
        ("roof_share", _positive, "a positive number"),
        ("peak_bytes", _count, "an integer >= 0"),
        ("trials", _count, "an integer >= 0"),
        ("space", _count, "an integer >= 0"),
    ),
    "static": (
        *COMMON_EVIDENCE,
        ("score", _positive, "a positive number"),
        ("candidates", _count, "an integer >= 0"),
    ),
}
"""What the evidence of each kind must hold, because `show`, `run` and `report` read it: path, test, what is allowed."""


def _at(evidence: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401  # whatever the file holds
    value: Any = evidence
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}..."


def _key_problems(key: Key) -> Iterable[str]:
    for field in fields(Key):
        value = getattr(key, field.name)
        if isinstance(value, str) and not _text(value):
            yield f"key.{field.name} is {_shown(value)}, expected 1 to {LONGEST_TEXT} printable characters"
    for name, allowed in CHOICES.items():
        if getattr(key, name) not in allowed:
            yield f"key.{name} is {_shown(getattr(key, name))}, not one of {list(allowed)}"
    if not 0 <= key.median_log2 <= key.total_log2 <= LARGEST_LOG2:
        yield f"sizes 2^{_shown(key.total_log2)} in all and 2^{_shown(key.median_log2)} in the median cannot be, at most 2^{LARGEST_LOG2}"
    if not SOURCE_HASH.fullmatch(key.source_hash):
        yield f"key.source_hash is {_shown(key.source_hash)}, expected 16 hexadecimal digits"


def _is_target(capability: str) -> bool:
    try:
        parse_target(capability)
    except InvalidConfigError:
        return False
    return True


def _device_problems(entry: Entry) -> Iterable[str]:
    key, spec = entry.key, SPECS[entry.key.kernel]
    on_gpu = spec.device == "gpu"
    if not (_is_target(key.capability) if on_gpu else key.capability in CPU_CAPABILITIES):
        allowed = "such as cuda:90 or hip:gfx942" if on_gpu else f"one of {list(CPU_CAPABILITIES)}"
        yield f"key.capability is {_shown(key.capability)}, expected {allowed}"
    threads = (0, 0) if on_gpu else (1, MOST_THREADS)
    if not threads[0] <= key.threads <= threads[1]:
        yield f"key.threads is {_shown(key.threads)}, allowed on a {spec.device}: {threads[0]} to {threads[1]}"
    if entry.kind == "measured" and key.device == ANY_DEVICE:
        yield f"key.device is {ANY_DEVICE!r}: a measurement is of one device"
    if reason := spec.rejects(entry.config.as_dict(), key.band):
        yield f"configuration not valid: {reason[:LONGEST_TEXT]}"


def entry_problems(entry: Entry) -> list[str]:
    """Everything that is wrong with an entry, wherever it is used; empty where it is sound.

    Key and configuration must be possible, texts printable, and the evidence complete enough to judge the entry by.
    """
    found = list(_key_problems(entry.key))
    if entry.key.kernel in SPECS:
        found += _device_problems(entry)
    else:
        found.append(f"key.kernel is {_shown(entry.key.kernel)}, not one of {list(SPECS)}")
    for path, test, allowed in EVIDENCE[entry.kind]:
        value = _at(entry.evidence, path)
        if not test(value):
            found.append(f"evidence.{path} is {'missing' if value is None else _shown(value)}, expected {allowed}")
    if "imported_from" in entry.evidence and not _origins(entry.evidence["imported_from"]):
        found.append(f"evidence.imported_from is {_shown(entry.evidence['imported_from'])}, expected a list of what was imported when")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What `check` says of one entry, or of a whole file where `index` is None.

    Attributes:
        store: "user store" or "shipped store". entry: None for a file and for an entry that cannot be read.
        problems: what is wrong. notes: what is worth knowing and no fault.
    """

    store: str
    path: Path
    index: int | None
    entry: Entry | None = None
    status: Status = "ok"
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _permission_notes(path: Path) -> tuple[str, ...]:
    """Who else may write here; the sticky bit keeps others from replacing files in a shared folder."""
    notes = []
    for place, what in ((path, "the store"), (path.parent, "its folder")):
        mode = place.stat().st_mode
        if mode & stat.S_IWOTH and not (what == "its folder" and mode & stat.S_ISVTX):
            notes.append(f"every user of this machine may write {what} {place}: chmod o-w {place}")
    return tuple(notes)


def _audit_entry(raw: object, seen: dict[Identity, int], index: int) -> tuple[Entry | None, tuple[str, ...]]:
    try:
        entry = parse_entry(raw)
    except InvalidConfigError as error:
        return None, (str(error)[: 2 * LONGEST_TEXT],)
    problems = entry_problems(entry)
    first = seen.setdefault(identity_of(entry), index)
    if first != index:
        problems.append(f"it has the key and kind of entry {first}: one of them is never used")
    return entry, tuple(problems)


def audit_store(name: str, path: Path, notes_on: Callable[[Entry], tuple[str, ...]]) -> list[Finding]:
    """The file, then every entry in its order. A store that does not exist is one finding with a note.

    Args:
        name: "user store" or "shipped store". path: the file.
        notes_on: why an entry is not used on this machine.
    """

    def unreadable(problem: str) -> list[Finding]:
        return [Finding(store=name, path=path, index=None, status="unreadable", problems=(problem,))]

    try:
        document = parse_json(read_regular_file(path))
        notes = _permission_notes(path)
    except FileNotFoundError:
        return [Finding(store=name, path=path, index=None, notes=("there is none yet: run sonew-autotune run",))]
    except (OSError, UnreadableFileError) as error:
        return unreadable(f"not readable: {error}")
    except DocumentError as error:
        return unreadable(f"not readable as JSON ({error}): the next writer moves it aside and begins a new one")
    if not isinstance(document, dict) or not isinstance(document.get("entries"), list):
        return unreadable(NOT_A_STORE)
    if not is_known_schema(document):
        found = _shown(document.get("schema_version"))
        return unreadable(f"schema_version is {found}, this version reads {SCHEMA_VERSION}: use the version of sonew that wrote it")
    findings = [Finding(store=name, path=path, index=None, notes=notes)]
    seen: dict[Identity, int] = {}
    for index, raw in enumerate(document["entries"]):
        entry, problems = _audit_entry(raw, seen, index)
        notes = notes_on(entry) if entry is not None and not problems else ()
        status: Status = "wrong" if problems else "ok"
        findings.append(Finding(store=name, path=path, index=index, entry=entry, status=status, problems=problems, notes=notes))
    return findings
