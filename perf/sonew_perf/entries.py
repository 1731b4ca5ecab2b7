"""What a record says of one timed case, whichever framework ran it, and of a launch plan. No framework is loaded here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from sonew.config import Plan
from sonew_autotune.measure import Ratio, Samples, paired_ratio
from sonew_kernels.spec import source_hash
from sonew_perf.records.files import Entry

MESSAGE_CHARACTERS: Final = 600


def digits(value: float) -> float:
    """As many digits as a time has."""
    return float(f"{value:.5g}")


def _ratio(ratio: Ratio) -> dict[str, float]:
    return {name: digits(value) for name, value in asdict(ratio).items()}


def timed_entry(name: str, settings: Mapping[str, str | int], samples: Mapping[str, Samples], peers: Sequence[str]) -> Entry:
    """Times of one case.

    Args:
        name: of the case. settings: what distinguishes it.
        samples: of every case of the run, by name.
        peers: names of the cases it is a multiple of.
    """
    own = samples[name]
    return {
        "case": name,
        "settings": dict(settings),
        "samples_ms": [digits(value) for value in own.times_ms],
        "repetitions": own.repetitions,
        "median_ms": digits(own.median_ms),
        "p20_ms": digits(own.p20_ms),
        "p80_ms": digits(own.p80_ms),
        "against": {peer: _ratio(paired_ratio(own, samples[peer])) for peer in peers},
    }


def plan_entry(plan: Plan) -> dict[str, object]:
    """What steps a launch group, and why: backend, kernel and its source hash, configuration, provenance."""
    return {
        "backend": plan.backend,
        "kernel": plan.config.kernel,
        "source_hash": source_hash(plan.config.kernel) if plan.config.kernel else "",
        "config": plan.config.as_dict(),
        "provenance": plan.provenance,
    }


def installed_version(package: str) -> str:
    """Version of an installed package, or "not installed"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def in_one_line(error: BaseException, kind: str = "") -> str:
    """An error with its kind, by default its type."""
    first = next((line for line in str(error).strip().splitlines() if line.strip()), "")
    return f"{kind or type(error).__name__}: {first}"[:MESSAGE_CHARACTERS]
