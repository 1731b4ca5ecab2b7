"""The verdict of a final comparison, and the store entry that carries what it rests on."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

import sonew
from sonew.config import LaunchConfig
from sonew.tuned import Entry, Key
from sonew_autotune.measure import Ratio, Samples, paired_ratio
from sonew_autotune.search.results import Tried
from sonew_autotune.trials.trial import ADAMW, BEST, COPY, DEFAULT, Comparison, Subject

PACKAGES: Final = ("torch", "triton", "optuna", "numpy")
NOISY_ROOF: Final = 3.0  # of a copy's pace: no step is that fast, other work held up the copy and who knows what else
DRIVERS: Final = ("nvidia", "amdgpu")
NOISY_SPREAD: Final = 0.5  # of the median: beyond it other work decides the times, and what wins today loses tomorrow


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which of the two won; `ratio` is best / default, whoever won. `noisy`: the times spread too much to dethrone the default."""

    status: Literal["tuned", "default kept"]
    config: dict[str, int]
    ratio: Ratio
    noisy: bool


def judge_comparison(subject: Subject, comparison: Comparison) -> Verdict:
    """The challenger wins only on a quiet machine and when the whole interval of its ratio to the default lies below 1."""
    ratio = paired_ratio(comparison.samples[BEST], comparison.samples[DEFAULT])
    spread = max(comparison.samples[name].spread for name in (BEST, DEFAULT))
    share = subject.case.roof_share(comparison.samples[BEST].median_ms, comparison.samples[COPY].median_ms)
    noisy = spread > NOISY_SPREAD or share > NOISY_ROOF
    if ratio.high < 1 and not noisy and dict(comparison.config) != dict(subject.default):
        return Verdict("tuned", dict(comparison.config), ratio, noisy)
    return Verdict("default kept", dict(subject.default), ratio, noisy)


def versions(root: Path = Path("/")) -> dict[str, str]:
    """Versions of what a time or a compiled kernel depends on; of a GPU's driver as its module says."""
    found = {"python": platform.python_version(), "sonew": sonew.__version__}
    for module in DRIVERS:
        with contextlib.suppress(OSError):
            found[f"{module} driver"] = (root / "sys/module" / module / "version").read_text(encoding="utf-8").strip()[:40]
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def now() -> str:
    """The date and time as it stands in evidence: UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _samples(samples: Samples) -> dict[str, Any]:
    shown = {"median_ms": samples.median_ms, "p20_ms": samples.p20_ms, "p80_ms": samples.p80_ms, "spread": samples.spread}
    return {**shown, "times_ms": list(samples.times_ms), "repetitions": samples.repetitions}


def entry_from(
    key: Key, subject: Subject, comparison: Comparison, verdict: Verdict, tried: Tried, *, seed: int, patience: int | None
) -> Entry:
    """The entry to store: the winning configuration with everything needed to judge it later.

    Evidence: `samples` of default, best challenger, AdamW and copy from the same rounds; `ratio_*` of the *winner's* time to
    each baseline's (below 1: faster); `challenger`, whose ratio to the default decided; `roof_share`, its bytes per second
    over the copy's.
    """
    samples: Mapping[str, Samples] = comparison.samples
    name = BEST if verdict.status == "tuned" else DEFAULT
    winner, case = samples[name], subject.case
    failed = [record for record in tried.records if record.failure is not None]
    evidence = {
        "result": verdict.status,
        "noisy": verdict.noisy,
        "case": case.name,
        "shapes": [list(shape) for shape in case.shapes],
        "median_ms": winner.median_ms,
        "spread": winner.spread,
        "samples": {workload: _samples(taken) for workload, taken in samples.items()},
        "rounds": len(winner.times_ms),
        "challenger": {"config": dict(comparison.config), "ratio_to_default": asdict(verdict.ratio)},
        "ratio_to_default": asdict(verdict.ratio if verdict.status == "tuned" else Ratio(1.0, 1.0, 1.0)),
        "ratio_to_adamw": asdict(paired_ratio(winner, samples[ADAMW])),
        "ratio_to_copy": asdict(paired_ratio(winner, samples[COPY])),
        "roof_share": case.roof_share(winner.median_ms, samples[COPY].median_ms),
        "bytes_moved": case.bytes_moved,
        "peak_bytes": comparison.peak_bytes[name],
        "trials": len(tried.records),
        "failed_trials": len(failed),
        "space": len(tried.space.points()),
        "search": tried.method,
        "stopped": tried.stopped,
        "stopped_because": tried.why,
        "patience": patience or 0,
        "seed": seed,
        "versions": versions(),
        "date": now(),
    }
    return Entry(key=key, kind="measured", config=LaunchConfig.of(key.kernel, verdict.config), evidence=evidence)
