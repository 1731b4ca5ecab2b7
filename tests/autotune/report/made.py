"""Made-up studies: a cost per configuration, a failure of each kind, and the decision that was taken."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from sonew.config import LaunchConfig
from sonew.tuned import Entry, Key
from sonew_autotune.measure import Ratio, Samples, paired_ratio
from sonew_autotune.report.studies import RawStudy
from sonew_autotune.search.opening import SUBJECT
from sonew_autotune.search.results import Record
from sonew_autotune.search.study import RECORD
from sonew_autotune.space import Space
from sonew_autotune.trials.outcome import KINDS, Failure, FailureKind
from sonew_kernels.spec import SPECS
from tests.autotune.entries import KEY

MEMORY: Final = {"cpu": 2.0, "triton": 0.4}  # milliseconds that no configuration can save
GPU: Final[Mapping[str, Any]] = {
    "kernel": "triton",
    "device": "Some GPU",
    "capability": "cuda:90",
    "threads": 0,
    "toolchain": "triton 3.7.1",
    "total_log2": 22,
    "median_log2": 22,
}


def key_of(kernel: str, **fields: Any) -> Key:
    return replace(KEY, **{**(GPU if kernel == "triton" else {}), **fields})


def cost(kernel: str, config: Mapping[str, int]) -> float:
    """Milliseconds: each parameter has a best value, and the first matters most."""
    tunables = SPECS[kernel].tunables
    away = [abs(tunable.values.index(config[tunable.name]) - len(tunable.values) // 2) for tunable in tunables]
    return MEMORY[kernel] * (1 + sum(0.12 * steps / (1 + place) for place, steps in enumerate(away)))


def space_of(kernel: str, band: int = 1) -> Space:
    axes = [(tunable.name, tunable.values if tunable.name != "threads" else (0, 1)) for tunable in SPECS[kernel].tunables]
    return Space(kernel, band, tuple(axes))


@cache  # the interval of a ratio is drawn anew each time
def _ratio(own: tuple[float, ...], default: tuple[float, ...]) -> Ratio:
    return paired_ratio(Samples(own), Samples(default))


def record_of(kernel: str, config: Mapping[str, int], number: int, *, rounds: int = 5, noise: float = 0.02) -> Record:
    """A timed record, with noise that repeats."""
    spread = random.Random(number)

    def times(milliseconds: float) -> tuple[float, ...]:
        return tuple(milliseconds * spread.uniform(1 - noise, 1 + noise) for _ in range(rounds))

    own, default, copy = times(cost(kernel, config)), times(cost(kernel, SPECS[kernel].default(1))), times(0.6 * MEMORY[kernel])
    ratio = _ratio(own, default)
    return Record(
        config=dict(config),
        ratio=ratio,
        median_ms=sorted(own)[rounds // 2],
        default_ms=sorted(default)[rounds // 2],
        times_ms=own,
        default_times_ms=default,
        copy_times_ms=copy,
        roof_share=MEMORY[kernel] / cost(kernel, config) * 0.93,
        pruned=number % 7 == 5,
        seconds=0.5 + 0.1 * (number % 3),
        finished=1.79e9 + 10 * number,
    )


def failed_record(config: Mapping[str, int], number: int, kind: FailureKind, message: str = "") -> Record:
    failure = Failure(kind, message or f"Planted: the {kind} of trial {number}")
    return Record(dict(config), failure=failure, seconds=0.2, finished=1.79e9 + 10 * number)


def records_of(kernel: str, count: int, *, failures: Sequence[FailureKind] = KINDS) -> list[Record]:
    """So many records, the default's first, with a failure of each kind among them."""
    points = space_of(kernel).points()
    random.Random(1).shuffle(points)
    default = SPECS[kernel].default(1)
    points.remove(default)
    chosen = [default, *points[: count - 1]]
    broken = {5 + 3 * place: kind for place, kind in enumerate(failures)}
    return [
        failed_record(config, number, broken[number]) if number in broken else record_of(kernel, config, number)
        for number, config in enumerate(chosen, 1)
    ]


def entry_of(key: Key, config: Mapping[str, int], **evidence: Any) -> Entry:
    """The decision: the configuration against the default over nine rounds."""
    default = SPECS[key.kernel].default(1)
    record = record_of(key.kernel, config, 999, rounds=9)
    drift = [1 + 0.05 * math.sin(number) for number in range(9)]
    adamw = [0.8 * MEMORY[key.kernel] * factor for factor in drift]
    times = {"best": record.times_ms, "default": record.default_times_ms, "adamw": adamw, "copy": record.copy_times_ms}
    assert record.ratio is not None
    ratio = asdict(record.ratio)
    tuned = dict(config) != dict(default)
    shown = {
        "result": "tuned" if tuned else "default kept",
        "noisy": False,
        "case": "4194304",
        "shapes": [[4194304]],
        "samples": {name: {"times_ms": list(taken)} for name, taken in times.items()},
        "challenger": {"config": dict(config), "ratio_to_default": ratio},
        "ratio_to_default": ratio,
        "ratio_to_adamw": asdict(_ratio(record.times_ms, tuple(adamw))),
        "roof_share": 0.91,
        "bytes_moved": 44 * 4194304,
        "peak_bytes": 96 * 2**20,
        "trials": 30,
        "failed_trials": 8,
        "space": len(space_of(key.kernel).points()),
        "search": "tpe",
        "stopped": "stalled",
        "stopped_because": "no better candidate in the last 20 trials",
        "seed": 0,
        "versions": {"python": "3.11.7", "torch": "2.13.0", "triton": "3.7.1"},
        "date": "2026-11-27T12:00:00Z",
    }
    return Entry(key=key, kind="measured", config=LaunchConfig.of(key.kernel, config), evidence={**shown, **evidence})


def subject_of(key: Key, *, case: str = "4194304") -> dict[str, Any]:
    """What a study says of itself, as `search.targets.Target.as_json`."""
    space = space_of(key.kernel)
    return {
        "key": asdict(key),
        "case": {"name": case, "shapes": [[4194304]], "device": "cpu", "band": key.band, "chain": key.chain},
        "default": SPECS[key.kernel].default(1),
        "space": {name: list(values) for name, values in space.axes},
    }


def raw_study(kernel: str = "cpu", *, count: int = 40, name: str = "", decided: bool = True, **fields: Any) -> RawStudy:
    """A study of this kernel family, decided for its best record unless asked otherwise."""
    key, records = key_of(kernel), records_of(kernel, count)
    winner = min((record for record in records if record.ratio), key=lambda record: cost(kernel, record.config)).config
    given = {
        "name": name or f"{kernel}-band1-float32-4194304-0123456789abcdef",
        "source": "studies/made-up.journal",
        "subject": subject_of(key),
        "records": [record.as_json() for record in records],
        "entry": entry_of(key, winner).as_json() if decided else None,
    }
    return RawStudy(**{**given, **fields})


def write_journal(path: Path, raw: RawStudy) -> None:
    """The study as the search would have written it, with trials under way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = JournalStorage(JournalFileBackend(str(path)))
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(storage=storage, study_name=raw.name)
        if raw.subject is not None:
            study.set_user_attr(SUBJECT, raw.subject)
        for record in raw.records:
            study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={RECORD: record}))
        for _ in range(raw.running):
            study.ask()
        if raw.entry is not None:
            decision = optuna.create_study(storage=storage, study_name=f"{raw.name} decision")
            decision.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"entry": raw.entry}))
