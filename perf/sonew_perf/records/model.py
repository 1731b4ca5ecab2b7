"""What the store holds, as plain values: a run, the series that its results belong to, and one result.

A *run* is one call of a measuring command: one file. A *series* is one thing that is measured again and again on one machine: the time of
SONew's step at band 1 on one tensor, say. A *point* is what one run says of one series, failures and skips among them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

Status = Literal["done", "failed", "skipped"]
UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a number was measured on.

    Attributes:
        id: short hash of what decides speed and does not change from day to day: device, its type, threads, instruction sets.
        device: the model's name. type: "cpu" or "cuda". threads: of the CPU.
        details: everything else that is known: versions, memory, governor, driver.
    """

    id: str
    device: str
    type: str
    threads: int
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For titles."""
        threads = f", {self.threads} thread{'s' if self.threads != 1 else ''}" if self.type == "cpu" else ""
        return f"{self.device} ({self.type}){threads}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One thing that is measured again and again.

    Attributes:
        kernel: what works: "step" or one of its phases ("prologue", "direction", "norms", "update"), "host" (the host's part of a step),
            "import", "tuner", "training".
        case: as its run names it: "SONew band 1", "AdamW fused", "copy", "sonew.torch".
        measure: "time" or "peak memory". unit: "ms", "s" or "bytes"; less is better for all of them.
        framework: "torch", "jax" or "" where it means nothing.
        workload: whose tensors: "one tensor", "gpt2-small"; "" where it means nothing.
        elements: of all tensors, 0 where it means nothing. dtype: of parameters and state: "float32", "float32, bfloat16 state".
        band: None where it means nothing.
        variant: what else distinguishes it, as "name=value, name=value"; "" for the plain case.
        machine: id of the `Machine`.
    """

    kernel: str
    case: str
    measure: str
    unit: str
    framework: str
    workload: str
    elements: int
    dtype: str
    band: int | None
    variant: str
    machine: str

    @property
    def id(self) -> str:
        """Short hash of every field, fit for file names and links."""
        return hashlib.sha256(json.dumps(list(asdict(self).values())).encode()).hexdigest()[:12]

    @property
    def title(self) -> str:
        """In a line, without the machine."""
        size = f"{self.workload}, {self.elements} elements" if self.workload and self.elements else self.workload
        named = [f"{self.case}: {self.kernel}", size, self.dtype, self.framework, self.variant]
        return ", ".join(part for part in named if part) + ("" if self.measure == "time" else f" ({self.measure})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One call of a measuring command.

    Attributes:
        id: sorts by date: "20261127T235501Z-1a2b3c4d"; of a record without one, the file's stem.
        date: ISO 8601 in UTC. label: the user's own word for it.
        command: that does it again. commit: 40 hex digits or "". commit_date: ISO 8601 or "". branch: or "".
        modified: whether the tree differed from the commit, None where nobody looked. diff: short hash of the difference.
        machine: where it ran.
        load: load average before it. seconds: it took.
        path: the file. origin: "store" or "baseline" (committed with the project).
        pinned: never dropped by `gc`.
    """

    id: str
    date: str
    machine: Machine
    label: str = ""
    command: str = ""
    commit: str = ""
    commit_date: str = ""
    branch: str = ""
    modified: bool | None = None
    diff: str = ""
    load: float | None = None
    seconds: float | None = None
    path: str = ""
    origin: str = "store"
    pinned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What one run says of one series.

    Attributes:
        series, run: ids.
        status, reason: "done", or why there is no number.
        samples: in `Series.unit`, in the order they were taken. median, q1, q3: of them; NaN-free, None without samples.
        against: ratios to the peers of the same rounds: name to {"median", "low", "high"}.
        facts: configuration, provenance, source hash, state bytes, bytes moved, whatever the record says more.
    """

    series: str
    run: str
    status: Status = "done"
    reason: str = ""
    samples: tuple[float, ...] = ()
    median: float | None = None
    q1: float | None = None
    q3: float | None = None
    against: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """A file of the store that cannot be used, and why."""

    path: str
    reason: str
