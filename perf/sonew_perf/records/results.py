"""What an entry of a record says, as series and points. One table has what the kinds of entries differ in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import floor
from typing import Any, Final

from sonew_perf.errors import RecordError
from sonew_perf.records.checks import Fields
from sonew_perf.records.model import Machine, Point, Series

UNITS: Final[Mapping[str, str]] = {"ms": "time", "s": "time", "bytes": "peak memory"}  # to what is measured
STATUSES: Final = ("done", "failed", "skipped")
IN_THE_CASE: Final = frozenset({"optimizer", "implementation", "roof", "family"})  # settings that a case's name says
NO_IDENTITY: Final = frozenset({"band", "state", "state_dtype", "direction_dtype", "bytes", "launched"})  # in other fields, or only notes
PLAIN: Final = frozenset({("tuning", "on"), ("backend", "auto"), ("way", "eager"), ("way", "direction")})
NO_FACTS: Final = frozenset(
    {"kind", "case", "date", "kernel", "framework", "dtype", "unit", "status", "reason", "median_ms", "p20_ms", "p80_ms", "load_before"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What an entry of a kind leaves unsaid.

    Attributes:
        kernel, framework: of its series. unit: of an entry without samples, which may leave it out.
        ours: the band is SONew's only, though every entry says it.
    """

    kernel: str
    framework: str = ""
    unit: str = "ms"
    ours: bool = False


KINDS: Final[Mapping[str, Kind]] = {
    "step time": Kind(kernel="step", framework="torch"),
    "phase time": Kind(kernel="phase", framework="torch"),  # its entries name the phase
    "jax step time": Kind(kernel="step", framework="jax"),
    "host time": Kind(kernel="host", framework="torch", ours=True),
    "import time": Kind(kernel="import"),
    "tuner time": Kind(kernel="tuner", unit="s"),
}
TRAINING: Final = "training run"
SEARCH: Final = "training search"  # settings that were tried before a run: its entries give no points


def kind_of(name: str) -> Kind:
    """What is known of a kind; another one is named by its own word."""
    return KINDS.get(name) or Kind(kernel=name.removesuffix(" time"))


@lru_cache(maxsize=2**16)
def series_id(series: Series) -> str:
    """`series.id`, computed once."""
    return series.id


@dataclass(frozen=True, slots=True)
class Result:
    """A point, its series, and which of the record's entries it comes from."""

    series: Series
    point: Point
    entry: int


def quantile(ordered: Sequence[float], share: float) -> float:
    """Of sorted values, between the nearest two by their distance, as numpy's default."""
    place = share * (len(ordered) - 1)
    low = floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def done_point(series: Series, run: str, samples: tuple[float, ...], against: Mapping[str, Any], facts: Mapping[str, Any]) -> Point:
    """A point with its middle and its quartiles; the samples are not empty."""
    ordered = sorted(samples)
    median, q1, q3 = (quantile(ordered, share) for share in (0.5, 0.25, 0.75))
    return Point(series=series_id(series), run=run, samples=samples, median=median, q1=q1, q3=q3, against=against, facts=facts)


def _dtype(fields: Fields, settings: Fields, workload: Fields) -> str:
    """Of parameters and state."""
    if own := fields.name("dtype", ""):
        return own
    parameters = workload.name("dtype", "")
    state = settings.name("state", "") or settings.name("state_dtype", "") or parameters
    return parameters if state == parameters else f"{parameters}, {state} state"


def _variant(settings: Fields, machine: Machine, *, in_jax: bool) -> str:
    """Settings that neither the case's name nor another field says, where they are not the plain ones."""
    usual = ("backend", "triton" if machine.type == "cuda" else "reference") if in_jax else None
    said = []
    for name in sorted(settings.values.keys() - IN_THE_CASE - NO_IDENTITY):
        value = settings.values[name]
        if isinstance(value, str):
            settings.name(name, "")
        if isinstance(value, str | int | float) and (name, value) not in PLAIN and (name, value) != usual:
            said.append(f"{name}={value}")
    variant = ", ".join(said)
    Fields(settings.where, {"variant": variant}).name("variant", "")
    return variant


def series_of(fields: Fields, kind: Kind, machine: Machine, unit: str) -> Series:
    """What the entry is a result of."""
    settings, workload = fields.inner("settings"), fields.inner("workload")
    case = fields.name("case")
    band = settings.count("band")
    if band is None and (not kind.ours or case.startswith("SONew")):
        band = fields.count("band")
    framework = fields.name("framework", kind.framework)
    kernel = "direction" if settings.values.get("way") == "direction" else kind.kernel
    return Series(
        kernel=fields.name("kernel", kernel),
        case=case,
        measure=UNITS[unit],
        unit=unit,
        framework=framework,
        workload=workload.name("name", ""),
        elements=workload.count("elements", 0) or 0,
        dtype=_dtype(fields, settings, workload),
        band=band,
        variant=_variant(settings, machine, in_jax=framework == "jax"),
        machine=machine.id,
    )


def plan_facts(fields: Fields) -> dict[str, Any]:
    """Backend, configuration and provenance; of several launch groups the distinct ones."""
    said: dict[str, list[str]] = {}
    for plan in fields.objects("plans"):
        config = " ".join(f"{name}={value}" for name, value in plan.inner("config").scalars().items())
        texts = {name: plan.text(name, "") for name in ("backend", "kernel", "source_hash", "provenance")}
        for name, text in {**texts, "config": config}.items():
            if text and text not in said.setdefault(name, []):
                said[name].append(text)
    return {name: "; ".join(texts) for name, texts in said.items() if texts}


def facts_of(fields: Fields) -> dict[str, Any]:
    """What else the entry says, as flat values."""
    settings = fields.inner("settings").scalars()
    own = {name: value for name, value in fields.scalars().items() if name not in NO_FACTS}
    share = fields.inner("copy_share").number("median")
    moved = {"bytes_moved": settings.pop("bytes")} if "bytes" in settings else {}
    return settings | moved | own | ({} if share is None else {"copy_share": share}) | plan_facts(fields)


def against_of(fields: Fields) -> dict[str, dict[str, float]]:
    """Ratios to the peers."""
    against = fields.inner("against")
    made: dict[str, dict[str, float]] = {}
    for peer in against.values:
        ratio = Fields.of(f"{against.where}, {fields.name('case')}", against.values[peer])
        Fields(against.where, {"peer": peer}).name("peer")
        made[peer] = {name: value for name in ("median", "low", "high") if (value := ratio.number(name)) is not None}
    return made


def _samples(fields: Fields, kind: Kind) -> tuple[str, tuple[float, ...]]:
    """Unit and samples."""
    if fields.values.get("samples_ms") is not None:
        return "ms", fields.numbers("samples_ms")
    return fields.choice("unit", tuple(UNITS), kind.unit), fields.numbers("samples")


def timed_results(fields: Fields, kind: Kind, machine: Machine, run: str) -> Iterator[tuple[Series, Point]]:
    """An entry's main series, then its peak memory and its phases, which have a median only.

    Raises:
        RecordError: something in the entry is not as it should be, or it is done and has no samples.
    """
    unit, samples = _samples(fields, kind)
    series, facts = series_of(fields, kind, machine, unit), facts_of(fields)
    status, reason = fields.choice("status", STATUSES, "done"), fields.text("reason", "")
    if status != "done":
        yield series, Point(series=series_id(series), run=run, status=status, reason=reason, facts=facts)  # type: ignore[arg-type]  # `choice` checked it
        return
    if not samples:
        name = "samples_ms" if kind.unit == "ms" and "samples" not in fields.values else "samples"
        fields.refuse(name, "numbers, or status failed or skipped with a reason")
    point = done_point(series, run, samples, against_of(fields), facts)
    if not point.median:
        msg = f"{fields.where}: the median is 0 {unit}, expected a number above 0"
        raise RecordError(msg)
    yield series, point
    if peak := fields.number("peak_bytes"):
        memory = _like(series, measure="peak memory", unit="bytes")
        yield memory, Point(series=series_id(memory), run=run, samples=(peak,), median=peak, q1=peak, q3=peak, facts=facts)
    phases = fields.inner("phases_ms")
    for name in phases.values:
        Fields(phases.where, {"phase": name}).name("phase")
        if median := phases.number(name):
            phase = _like(series, kernel=name, unit="ms", measure="time")
            yield phase, Point(series=series_id(phase), run=run, median=median, facts=facts)


@lru_cache(maxsize=2**16)
def _like(series: Series, *, kernel: str = "", measure: str, unit: str) -> Series:
    """A series of the same entry."""
    return replace(series, kernel=kernel or series.kernel, measure=measure, unit=unit)
