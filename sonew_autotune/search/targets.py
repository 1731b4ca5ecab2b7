"""What a problem's search rests on: the backend, the key, the space, and what similar problems found."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from sonew import tuned
from sonew.dispatch import judge_backends, shipped_store_paths
from sonew.registry import BACKENDS
from sonew_autotune.device import NoDeviceError
from sonew_autotune.problems import Case
from sonew_autotune.search.results import Record
from sonew_autotune.space import Space, build_space
from sonew_autotune.store.evidence import now, versions
from sonew_autotune.trials.landscape import Landscape, LandscapeRecord
from sonew_autotune.trials.recorded import BACKEND
from sonew_autotune.trials.trial import Subject
from sonew_kernels.spec import SPECS, source_hash

PROTOCOL: Final = 2  # of the trials: raise it when their times are no longer comparable with older ones
NEIGHBOURS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A case with the backend that will step it here, and the key under which its winner is kept.

    `replayed`: what an entry's evidence says where times come from a recording.
    """

    subject: Subject
    key: tuned.Key
    space: Space
    replayed: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """What a study says of itself: key, case, default and space."""
        space = {name: list(values) for name, values in self.space.axes}
        return {"key": asdict(self.key), "case": asdict(self.subject.case), "default": dict(self.subject.default), "space": space}

    @property
    def study_name(self) -> str:
        """Everything that a trial's time depends on, as a file name."""
        identity = [PROTOCOL, asdict(self.key), self.subject.case.shapes, self.space.axes, dict(self.subject.default)]
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
        name = re.sub(r"[^\w.\[\]-]", "_", self.subject.case.name)[:60]  # a recording's may be anything
        return f"{self.key.kernel}-band{self.key.band}-{self.key.param_dtype}-{name}-{digest}"


def find_target(case: Case) -> Target:
    """The tunable backend for a case on this machine.

    Raises:
        NoDeviceError: none can step it here; the message has every backend's reason.
    """
    verdicts = judge_backends(case.problem, framework="torch")
    modules = {row.name: row.module for row in BACKENDS if row.framework == "torch"}
    for verdict in verdicts:
        module = import_module(modules[verdict.backend])
        if verdict.reason is None and module.KERNEL:
            environment = module.environment()
            space = build_space(module.KERNEL, case.band, threads=int(environment["threads"]))
            key = tuned.make_key(case.problem, module.KERNEL, environment, source_hash(module.KERNEL))
            subject = Subject(case=case, backend=verdict.backend, kernel=module.KERNEL, default=space.default)
            return Target(subject=subject, key=key, space=space)
    reasons = "; ".join(f"{verdict.backend}: {(verdict.reason or 'has nothing to tune').splitlines()[0][:300]}" for verdict in verdicts)
    msg = f"nothing can be tuned for {case.title}. {reasons}"
    raise NoDeviceError(msg)


def neighbours(target: Target, path: Path) -> list[dict[str, int]]:
    """The best of similar problems on this device, nearest first: good points to try early."""
    stores = [tuned.read_store("user store", path), *(tuned.read_store("shipped store", shipped) for shipped in shipped_store_paths())]
    verdicts = [
        tuned.judge(source.name, entry, target.key, None)
        for source in stores
        for entry in source.entries
        if entry.key.kernel == target.key.kernel and entry.config.as_dict() in target.space
    ]
    verdicts.sort(key=lambda verdict: (len(verdict.reasons), *verdict.rank))
    unique = {verdict.entry.config.meta: verdict.entry.config.as_dict() for verdict in verdicts}
    return list(unique.values())[:NEIGHBOURS]


def recorded_target(landscape: Landscape) -> Target:
    """The target of a problem that is replayed instead of measured."""
    kernel = landscape.key.kernel
    tried = {tunable.name: {record.config.get(tunable.name) for record in landscape.records} for tunable in SPECS[kernel].tunables}
    values = {tunable.name: tuple(value for value in tunable.values if value in tried[tunable.name]) for tunable in SPECS[kernel].tunables}
    subject = Subject(case=landscape.case, backend=BACKEND, kernel=kernel, default=landscape.default)
    space = Space(kernel, landscape.key.band, tuple(values.items()))
    replayed = {"replayed": True, "versions": dict(landscape.versions), "date": landscape.date}
    return Target(subject=subject, key=landscape.key, space=space, replayed=replayed)


def landscape_of(target: Target, records: Sequence[Record]) -> Landscape:
    """What a search measured, as a file of recorded trials has it."""
    kept = tuple(
        LandscapeRecord(
            config=record.config,
            times_ms=record.times_ms,
            default_ms=record.default_times_ms,
            copy_ms=record.copy_times_ms,
            failure=record.failure,
        )
        for record in records
    )
    subject = target.subject
    return Landscape(key=target.key, case=subject.case, default=dict(subject.default), records=kept, versions=versions(), date=now())
