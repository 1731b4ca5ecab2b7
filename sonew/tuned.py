"""Tuned configurations: the stored entry, reading stores, and the look-up. Entries are data and are checked before use."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal

from sonew.config import LaunchConfig, Problem
from sonew.documents import DocumentError, UnreadableFileError, parse_json, read_regular_file
from sonew.errors import InvalidConfigError

SCHEMA_VERSION: Final = 1
Kind = Literal["measured", "static"]
NOT_A_STORE: Final = 'not a store (expected {"schema_version": ..., "entries": [...]})'
ANY_DEVICE: Final = "any"  # a static entry holds for every device of its capability


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What a tuned configuration is good for. Sizes are a bucket (see `Problem.size_bucket`); the rest must match exactly.

    Attributes:
        kernel: family in `sonew_kernels.spec.SPECS`. entry: "table" or "direct".
        device: GPU name or CPU model, "any" in static entries. capability: "cuda:90", "hip:gfx942" or the CPU's ISA.
        threads: CPU threads, 0 on a GPU.
        band, chain, param_dtype, grad_dtype, state_dtype, direction_dtype: as in `Problem`.
        total_log2, median_log2: the size bucket.
        toolchain: compiler and version. source_hash: of the kernel family's sources.
    """

    kernel: str
    entry: str
    device: str
    capability: str
    threads: int
    band: int
    chain: str
    param_dtype: str
    grad_dtype: str
    state_dtype: str
    direction_dtype: str
    total_log2: int
    median_log2: int
    toolchain: str
    source_hash: str


STALE_FIELDS: Final = ("toolchain", "source_hash")
SIZE_FIELDS: Final = ("total_log2", "median_log2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A tuned configuration with its evidence (what was measured or compiled, when, against what)."""

    key: Key
    kind: Kind
    config: LaunchConfig
    evidence: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The entry as it stands in a store."""
        return {"key": asdict(self.key), "kind": self.kind, "config": self.config.as_dict(), "evidence": dict(self.evidence)}


def make_key(problem: Problem, kernel: str, environment: Mapping[str, str | int], source_hash: str, *, entry: str = "table") -> Key:
    """The key under which a problem's configuration is stored and looked up on the described device."""
    total, median = problem.size_bucket
    return Key(
        kernel=kernel,
        entry=entry,
        device=str(environment["device"]),
        capability=str(environment["capability"]),
        threads=int(environment["threads"]),
        band=problem.band,
        chain=problem.chain,
        param_dtype=problem.param_dtype,
        grad_dtype=problem.grad_dtype,
        state_dtype=problem.state_dtype,
        direction_dtype=problem.direction_dtype,
        total_log2=total,
        median_log2=median,
        toolchain=str(environment["toolchain"]),
        source_hash=source_hash,
    )


def type_names(subject: Key | Problem) -> str:
    """The parameters' type, and what differs from the usual: gradients of another one, state or direction not in float32."""
    grads = "" if subject.grad_dtype == subject.param_dtype else f"/{subject.grad_dtype} gradients"
    narrow = (("state", subject.state_dtype), ("direction", subject.direction_dtype))
    return f"{subject.param_dtype}{grads}" + "".join(f", {dtype} {name}" for name, dtype in narrow if dtype != "float32")


def _typed(name: str, value: object, kind: type) -> Any:  # noqa: ANN401  # the caller names the type
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        msg = f"{name} is {value!r}, expected {kind.__name__}"
        raise InvalidConfigError(msg)
    return value


def _finite(name: str, value: object) -> None:
    """Refuse a float in here that no JSON file can hold."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, float) and not math.isfinite(node):
            msg = f"{name} holds {node}, expected finite numbers"
            raise InvalidConfigError(msg)
        if isinstance(node, dict | list):
            waiting += node.values() if isinstance(node, dict) else node


def parse_entry(raw: object) -> Entry:
    """Entry from parsed JSON, nested to a bounded depth (`sonew.documents`).

    Raises:
        InvalidConfigError: with the field at fault.
    """
    data = _typed("entry", raw, dict)
    if missing := {"key", "kind", "config", "evidence"} - set(data):
        msg = f"entry lacks {sorted(missing)}"
        raise InvalidConfigError(msg)
    raw_key = _typed("key", data["key"], dict)
    names = {field.name for field in fields(Key)}
    if set(raw_key) != names:
        msg = f"key has fields {sorted(raw_key)}, expected {sorted(names)}"
        raise InvalidConfigError(msg)
    types = {field.name: int if field.type == "int" else str for field in fields(Key)}
    key = Key(**{name: _typed(f"key.{name}", raw_key[name], types[name]) for name in names})
    if data["kind"] not in ("measured", "static"):
        msg = f'kind is {data["kind"]!r}, expected "measured" or "static"'
        raise InvalidConfigError(msg)
    config = {str(name): _typed(f"config.{name}", value, int) for name, value in _typed("config", data["config"], dict).items()}
    evidence = _typed("evidence", data["evidence"], dict)
    _finite("evidence", evidence)
    return Entry(key=key, kind=data["kind"], config=LaunchConfig.of(key.kernel, config), evidence=evidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """One store file as read: its entries, and in `problems` what could not be used, a line each.

    Attributes:
        name: "user store" or "shipped store".
    """

    name: str
    path: Path
    entries: tuple[Entry, ...]
    problems: tuple[str, ...]


def is_known_schema(document: Mapping[str, Any]) -> bool:
    """Whether a store's document is of the version that is read and written here."""
    version = document.get("schema_version")
    return type(version) is int and version == SCHEMA_VERSION


def _unusable(name: str, path: Path, problem: str) -> Store:
    return Store(name=name, path=path, entries=(), problems=(f"{name} {path}: {problem}",))


def read_store(name: str, path: Path) -> Store:
    """Read a store. Never raises on what the file holds: a damaged file or entry becomes a line in `problems`."""
    try:
        document = parse_json(read_regular_file(path))
    except FileNotFoundError:
        return Store(name=name, path=path, entries=(), problems=())
    except (OSError, UnreadableFileError) as error:
        return _unusable(name, path, f"not readable ({error}); make it a readable file or name another store")
    except DocumentError as error:
        return _unusable(name, path, f"not readable as JSON ({error}); delete it or tune again")
    if not isinstance(document, dict) or not isinstance(document.get("entries"), list):
        return _unusable(name, path, NOT_A_STORE)
    if not is_known_schema(document):
        found = document.get("schema_version")
        return _unusable(name, path, f"schema_version is {found!r}, this version reads {SCHEMA_VERSION}")
    entries: list[Entry] = []
    problems: list[str] = []
    for index, raw in enumerate(document["entries"]):
        try:
            entries.append(parse_entry(raw))
        except InvalidConfigError as error:
            problems.append(f"{name} {path}: entry {index}: {error}")
    return Store(name=name, path=path, entries=tuple(entries), problems=tuple(problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Why one entry may or may not serve a key: `reasons` is empty when it may, otherwise a line for each field at fault.

    Attributes:
        distance: steps between the size buckets, 0 for the exact bucket.
    """

    store: str
    entry: Entry
    reasons: tuple[str, ...]
    distance: int

    @property
    def rank(self) -> tuple[bool, int]:
        """Measured before static, then the nearest bucket."""
        return self.entry.kind == "static", self.distance


def field_fits(entry: Entry, key: Key, name: str) -> bool:
    """Whether a field of the key allows the entry's use; sizes always do, they only count as distance."""
    general = name in ("device", "threads") and entry.kind == "static" and entry.key.device == ANY_DEVICE
    return name in SIZE_FIELDS or general or bool(getattr(entry.key, name) == getattr(key, name))


def judge(store: str, entry: Entry, key: Key, invalid: str | None) -> Verdict:
    """Compare an entry with the wanted key field by field; `invalid` is the spec's reason against its configuration, if any."""
    reasons = []
    for field in fields(Key):
        name = field.name
        if not field_fits(entry, key, name):
            stale = "stale: " if name in STALE_FIELDS else ""
            reasons.append(f"{stale}{name} is {getattr(entry.key, name)!r}, here {getattr(key, name)!r}")
    if invalid:
        reasons.append(f"configuration not valid: {invalid}")
    distance = sum(abs(getattr(entry.key, name) - getattr(key, name)) for name in SIZE_FIELDS)
    return Verdict(store=store, entry=entry, reasons=tuple(reasons), distance=distance)


def best(verdicts: Iterable[Verdict]) -> Verdict | None:
    """The entry to use: measured before static, nearest bucket first, earlier stores before later ones."""
    usable = [verdict for verdict in verdicts if not verdict.reasons]
    return min(usable, key=lambda verdict: verdict.rank, default=None)


def near_miss(verdicts: Iterable[Verdict]) -> Verdict | None:
    """The entry that failed on the fewest fields, for a message that says what stood in the way."""
    return min(verdicts, key=lambda verdict: (len(verdict.reasons) or math.inf, verdict.distance), default=None)
