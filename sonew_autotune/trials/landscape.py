"""Recorded trials of one problem: every configuration that was tried with its samples. Files to replay, and to judge models by."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from sonew.errors import InvalidConfigError
from sonew.tuned import Key
from sonew_autotune.problems import Case
from sonew_autotune.store.files import write_atomically
from sonew_autotune.trials.outcome import KINDS, Failure
from sonew_kernels.spec import SPECS, STORAGE_BYTES, SUPPORTED_BANDS

SCHEMA_VERSION: Final = 1
STORED: Final = ("param_dtype", "grad_dtype", "state_dtype", "direction_dtype")


@dataclass(frozen=True, slots=True, kw_only=True)
class LandscapeRecord:
    """One configuration's samples, round by round, in milliseconds, or its failure.

    Attributes:
        times_ms, default_ms, copy_ms: of the candidate, the default configuration and a copy, in the same rounds.
    """

    config: Mapping[str, int]
    times_ms: tuple[float, ...] = ()
    default_ms: tuple[float, ...] = ()
    copy_ms: tuple[float, ...] = ()
    failure: Failure | None = None

    @property
    def ratios(self) -> tuple[float, ...]:
        """Candidate over default, round by round."""
        return tuple(own / default for own, default in zip(self.times_ms, self.default_ms, strict=True))

    @property
    def ratio(self) -> float:
        """The median ratio; infinite where the candidate failed."""
        return statistics.median(self.ratios) if self.times_ms else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Landscape:
    """The recorded trials of one problem.

    Attributes:
        key: device, problem and kernel, as a store has it. case: the shapes behind it.
        default: the configuration that ratios refer to.
        versions, date: of the measurement.
    """

    key: Key
    case: Case
    default: Mapping[str, int]
    records: tuple[LandscapeRecord, ...]
    versions: Mapping[str, str]
    date: str

    @property
    def best(self) -> LandscapeRecord:
        """The record with the smallest median ratio."""
        return min(self.records, key=lambda record: record.ratio)

    def as_json(self) -> dict[str, Any]:
        """The landscape as it stands in a file."""
        return asdict(self)


def write_landscapes(path: Path, landscapes: Sequence[Landscape]) -> None:
    """Write a file of landscapes, whole or not at all."""
    lines = [json.dumps(landscape.as_json(), allow_nan=False) for landscape in landscapes]
    entries = ",\n".join(lines)
    write_atomically(path, f'{{"schema_version": {SCHEMA_VERSION}, "entries": [\n{entries}\n]}}\n')


def _times(raw: object, name: str) -> tuple[float, ...]:
    if not isinstance(raw, list) or not all(isinstance(time, int | float) and math.isfinite(time) and time > 0 for time in raw):
        msg = f"{name} is not a list of positive numbers"
        raise InvalidConfigError(msg)
    return tuple(map(float, raw))


def _record(raw: Mapping[str, Any]) -> LandscapeRecord:
    config = {str(name): value for name, value in raw["config"].items() if isinstance(value, int)}
    if raw.get("failure") is not None:
        failure = Failure(**raw["failure"])
        if failure.kind not in KINDS:
            msg = f"failure.kind={failure.kind!r} is not one of {list(KINDS)}"
            raise InvalidConfigError(msg)
        return LandscapeRecord(config=config, failure=failure)
    own, default, copy = (_times(raw[name], name) for name in ("times_ms", "default_ms", "copy_ms"))
    record = LandscapeRecord(config=config, times_ms=own, default_ms=default, copy_ms=copy)
    if not record.times_ms or len({len(record.times_ms), len(record.default_ms), len(record.copy_ms)}) != 1:
        msg = "times_ms, default_ms and copy_ms must have as many rounds, at least one"
        raise InvalidConfigError(msg)
    return record


def _landscape(raw: Mapping[str, Any]) -> Landscape:
    shapes = tuple(tuple(int(side) for side in shape) for shape in raw["case"]["shapes"])
    key = Key(**raw["key"])
    for field in fields(Key):
        if not isinstance(getattr(key, field.name), int if field.type == "int" else str):
            msg = f"key.{field.name} is {getattr(key, field.name)!r}, expected {field.type}"
            raise InvalidConfigError(msg)
    case, records = Case(**{**raw["case"], "shapes": shapes}), tuple(map(_record, raw["records"]))
    for name, value, allowed in (
        ("key.kernel", key.kernel, tuple(SPECS)),
        ("key.band", key.band, SUPPORTED_BANDS),
        ("case.band", case.band, (key.band,)),
        ("case.device", case.device, ("cpu", "cuda")),
        *((f"case.{field}", getattr(case, field), tuple(STORAGE_BYTES)) for field in STORED),
    ):
        if value not in allowed:
            msg = f"{name} is {value!r}, expected one of {list(allowed)}"
            raise InvalidConfigError(msg)
    if not records or not shapes or min(case.elements, *(side for shape in shapes for side in shape)) < 1 or not isinstance(case.name, str):
        msg = "a landscape needs a name, records, and shapes of at least one element"
        raise InvalidConfigError(msg)
    return Landscape(
        key=key,
        case=case,
        default=dict(raw["default"]),
        records=records,
        versions=dict(raw["versions"]),
        date=str(raw["date"]),
    )


def read_landscapes(path: Path) -> tuple[Landscape, ...]:
    """Read a file of landscapes.

    Raises:
        InvalidConfigError: it is not one, with what is wrong and how to make one.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema_version"] != SCHEMA_VERSION:
            msg = f"schema_version is {document['schema_version']!r}, this version reads {SCHEMA_VERSION}"
            raise InvalidConfigError(msg)  # one message for whatever is wrong
        return tuple(map(_landscape, document["entries"]))
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        msg = f"{path} is not a file of recorded trials: {reason}. Make one with: sonew-autotune run --record FILE"
        raise InvalidConfigError(msg) from error
