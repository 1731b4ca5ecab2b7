"""Every run of a command, one after the other: what a record holds already is not trained again, and what is finished is kept at once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from sonew_perf.entries import installed_version
from sonew_perf.machine import describe
from sonew_perf.records import files
from sonew_perf.records.files import Entry
from sonew_perf.training.loop import Told, train
from sonew_perf.training.runs import Run, find_result, identity
from sonew_perf.training.tasks.data import Data

UNFINISHED: Final = "training"  # the store's folder of commands that have not come to their end
LOCK: Final = "runs.lock"  # in that folder
STORE_FIX: Final = "Pass a writable --store."


def unfinished_path(folder: Path, runs: Sequence[Run], data: Data, device: torch.device) -> Path:
    """Where a store keeps what is finished of a command whose other runs are still to come."""
    named = json.dumps([identity(run, data.describe(), machine_for(run.framework, device)) for run in runs], sort_keys=True)
    return folder / UNFINISHED / f"{hashlib.sha256(named.encode()).hexdigest()[:16]}.json"


def load_average() -> float:
    """Of the last minute: who else was at work while a run trained."""
    return round(os.getloadavg()[0], 2)


def train_one(run: Run, data: Data, device: torch.device, *, counters: bool, told: Told) -> Entry:
    """Train in the run's framework; the result's part of an entry, as `loop.train` gives it. JAX counts nothing.

    Raises:
        InvalidConfigError: what the framework does not train. DataError: the data does not fill a batch.
        MeasurementError: the process that trains in JAX failed.
    """
    if run.framework == "jax":
        from sonew_perf.training.jax.ask import train_in_jax  # noqa: PLC0415  # starts a process that loads JAX

        return train_in_jax(run, data, device.type, told=told)
    return train(run, data, device, counters=counters, told=told)


def machine_for(framework: str, device: torch.device) -> dict[str, Any]:
    """What a run is measured on, with the versions of its framework."""
    if framework == "jax":
        return describe(device) | {name: installed_version(name) for name in ("jax", "jaxlib", "optax")}
    return describe(device)


def train_all(
    runs: Sequence[Run],
    data: Data,
    device: torch.device,
    record: Sequence[Entry],
    *,
    counters: bool = False,
    told: Mapping[Run, Told] | None = None,
) -> Iterator[tuple[Entry, bool]]:
    """The entry of every run in order, and whether it is new: runs that the record holds are not trained again.

    Args:
        runs: what to train. data: of their task. device: where.
        record: what is known. With `counters` a run of SONew is known only with what it counted.
        told: per run, hears of its mean losses, as `loop.train` tells them.

    Raises:
        InvalidConfigError, DataError, MeasurementError: as `train_one`, when it is that run's turn.
    """
    counted = [entry for entry in record if entry.get("fallback") is not None]
    for run in runs:
        wanted = identity(run, data.describe(), machine_for(run.framework, device))
        known = find_result(counted if counters and run.band is not None else record, wanted)
        if known is not None:
            yield known, False
            continue
        hears = (told or {}).get(run, lambda _mean, _loss: None)
        yield wanted | {"load_before": load_average()} | train_one(run, data, device, counters=counters, told=hears), True


def keep_unfinished(path: Path, entries: Sequence[Entry]) -> None:
    """Write what is finished of a command; the file goes when the command has come to its end.

    Raises:
        RecordError: the place cannot be written.
    """
    files.write_text(path, files.document(entries), fix=STORE_FIX)


def add_unfinished(path: Path, entries: Sequence[Entry]) -> None:
    """As `keep_unfinished`, beside what the same command, begun twice, has finished.

    Raises:
        RecordError: the place cannot be written or read.
    """
    with files.holding(path.with_name(LOCK), fix=STORE_FIX):
        others = files.read_entries(path)
        keep_unfinished(path, [*others, *(entry for entry in entries if entry not in others)])
