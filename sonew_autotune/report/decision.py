"""What was decided for a problem, from a stored entry's evidence, which may lack anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sonew.tuned import Entry
from sonew_autotune.measure import Ratio
from sonew_autotune.trials.trial import ADAMW, BEST, COPY, DEFAULT

WORKLOADS: Final = (BEST, DEFAULT, ADAMW, COPY)
SMALLEST: Final = 1e-15
LARGEST: Final = 1e15


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The final comparison and its verdict. What the evidence lacks is None, "" or empty.

    Attributes:
        tuned: whether a challenger displaced the default. config: what is stored.
        challenger: the best candidate, which stood against the default, and `ratio` its time over the default's.
        samples: milliseconds of each workload (`WORKLOADS`), round by round. to_adamw: the stored configuration's time over fused AdamW's.
        roof_share: bytes per second over a copy's. bytes_moved: by a step. peak_bytes: held by a step.
        noisy: the times spread too much to judge a challenger. space: valid points.
        method: how points were chosen. stopped_because: why the search ended. seed: of the search.
        versions: of what a time depends on. date: UTC.
    """

    tuned: bool
    config: Mapping[str, int]
    challenger: Mapping[str, int] | None
    ratio: Ratio | None
    samples: Mapping[str, tuple[float, ...]]
    to_adamw: Ratio | None
    roof_share: float | None
    bytes_moved: float | None
    peak_bytes: float | None
    noisy: bool
    space: int | None
    method: str
    stopped_because: str
    seed: int | None
    versions: Mapping[str, str]
    date: str


def read_number(value: object) -> float | None:
    """A positive number of a size that times, ratios and bytes have, None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if SMALLEST < value < LARGEST else None


def read_config(value: object) -> dict[str, int] | None:
    """A configuration, None for everything else."""
    raw = _mapping(value)
    config = {str(name): number for name, number in raw.items() if type(number) is int and abs(number) < LARGEST}
    return config if config and len(config) == len(raw) else None


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _ratio(value: object) -> Ratio | None:
    raw = _mapping(value)
    median, low, high = (read_number(raw.get(name)) for name in ("median", "low", "high"))
    return Ratio(median, low, high) if median is not None and low is not None and high is not None else None


def _times(value: object) -> tuple[float, ...]:
    raw = _mapping(value).get("times_ms")
    times = [read_number(time) for time in raw] if isinstance(raw, Sequence) and not isinstance(raw, str) else []
    sound = tuple(time for time in times if time is not None)
    return sound if len(sound) == len(times) else ()


def read_decision(entry: Entry) -> Decision:
    """The decision behind a stored entry."""
    evidence = entry.evidence
    challenger, samples = _mapping(evidence.get("challenger")), _mapping(evidence.get("samples"))
    tuned, config = evidence.get("result") == "tuned", read_config(entry.config.as_dict()) or {}
    ratio = _ratio(challenger.get("ratio_to_default")) or (_ratio(evidence.get("ratio_to_default")) if tuned else None)
    taken = {name: _times(samples.get(name)) for name in WORKLOADS}
    return Decision(
        tuned=tuned,
        config=config,
        challenger=read_config(challenger.get("config")) or (config if tuned else None),
        ratio=ratio,
        samples={name: times for name, times in taken.items() if times},
        to_adamw=_ratio(evidence.get("ratio_to_adamw")),
        roof_share=read_number(evidence.get("roof_share")),
        bytes_moved=read_number(evidence.get("bytes_moved")),
        peak_bytes=read_number(evidence.get("peak_bytes")),
        noisy=evidence.get("noisy") is True,
        space=_count(evidence.get("space")),
        method=_text(evidence.get("search")),
        stopped_because=_text(evidence.get("stopped_because")),
        seed=_count(evidence.get("seed")),
        versions={str(name): str(version) for name, version in _mapping(evidence.get("versions")).items()},
        date=_text(evidence.get("date")),
    )
