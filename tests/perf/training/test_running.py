"""Every run of a command: known ones are not trained again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from sonew_perf.entries import installed_version
from sonew_perf.errors import DataError, RecordError
from sonew_perf.machine import describe
from sonew_perf.records.files import Entry, json_text, read_entries
from sonew_perf.training import running
from sonew_perf.training.loop import Told
from sonew_perf.training.running import add_unfinished, keep_unfinished, machine_for, train_all, unfinished_path
from sonew_perf.training.runs import Run, identity
from sonew_perf.training.tasks.data import Data
from tests.perf.training.made import CPU, DATA, make_run

pytestmark = pytest.mark.usefixtures("_small_task")

RUNS = [make_run(method, lr=lr, seed=seed, steps=2) for seed in (0, 1) for method in ("sonew", "adam") for lr in (0.01, 0.03)]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Runs that were really trained; training is replaced by a number made from the run."""
    runs: list[Run] = []

    def fake(run: Run, _data: Data, _device: torch.device, *, counters: bool, told: Told) -> Entry:
        runs.append(run)
        told(0, run.settings.lr)
        return {"loss": run.settings.lr + run.seed, "fallback": {"layers": {}} if counters and run.band is not None else None}

    monkeypatch.setattr(running, "train", fake)
    return runs


def entries_of(runs: Sequence[Run], record: Sequence[Entry], **options: Any) -> tuple[list[Entry], list[bool]]:
    found = list(train_all(runs, DATA, CPU, record, **options))
    return [entry for entry, _ in found], [new for _, new in found]


def test_recorded_runs_are_not_trained_again(trained: list[Run]) -> None:
    record, new = entries_of(RUNS, [])
    assert (trained, new) == (RUNS, [True] * 8)
    missing = record.pop(5)
    again, new = entries_of(RUNS, record)
    assert trained[8:] == [RUNS[5]]
    assert new == [False] * 5 + [True] + [False] * 2
    assert [entry["loss"] for entry in again] == [run.settings.lr + run.seed for run in RUNS]
    assert again[5] | {"load_before": 0} == missing | {"load_before": 0}


def test_an_entry_that_was_written_and_read_is_found(trained: list[Run]) -> None:
    record, _ = entries_of(RUNS[:1], [])
    read = [json.loads(json_text(entry)) for entry in record]
    assert entries_of(RUNS[:1], read) == (read, [False])
    assert len(trained) == 1


def test_what_was_trained_elsewhere_is_trained_again(trained: list[Run]) -> None:
    ((entry,), _) = entries_of(RUNS[:1], [])
    elsewhere: list[Entry] = [{"machine": {"device": "another"}}, {"data": DATA.describe() | {"sha256": "1f"}}, {"hyper": {}}]
    for changed in elsewhere:
        entries_of(RUNS[:1], [entry | changed])
    assert len(trained) == 4


def test_an_entry_is_the_run_the_load_and_the_result() -> None:
    ((entry,), _) = entries_of([make_run("adam", steps=2)], [])
    wanted = identity(make_run("adam", steps=2), DATA.describe(), describe(CPU))
    assert {name: entry[name] for name in wanted} == wanted
    assert entry["load_before"] >= 0
    assert len(entry["losses"]) == 1
    assert json.loads(json_text(entry)) == entry


def test_runs_are_yielded_one_by_one_so_that_each_can_be_kept_before_the_next(trained: list[Run]) -> None:
    each = train_all(RUNS, DATA, CPU, [])
    for number in range(1, 4):
        next(each)
        assert trained == RUNS[:number]


def test_each_run_hears_of_its_own_losses(trained: list[Run]) -> None:
    heard: list[tuple[int, float]] = []
    told = {RUNS[number]: partial(lambda number, mean, loss: heard.append((number + mean, loss)), number) for number in (0, 3)}
    entries_of(RUNS[:4], [], told=told)
    assert heard == [(0, 0.01), (3, 0.03)]
    assert trained == RUNS[:4]


def test_counters_train_again_what_was_not_counted_and_that_once(trained: list[Run]) -> None:
    runs = [make_run(band=1), make_run(band=0), make_run("adam")]
    record, _ = entries_of(runs, [])
    counted, new = entries_of(runs, record, counters=True)
    assert new == [True, True, False]
    assert trained == [*runs, *runs[:2]]
    assert [entry["fallback"] is not None for entry in counted] == [True, True, False]
    assert entries_of(runs, record + counted, counters=True)[1] == [False] * 3
    assert entries_of(runs, record + counted)[1] == [False] * 3


def test_jax_trains_in_a_process_that_is_asked(monkeypatch: pytest.MonkeyPatch, trained: list[Run]) -> None:
    asked: list[tuple[Run, str]] = []

    def fake(run: Run, _data: Data, device_type: str, *, told: Told) -> Entry:
        told(0, 1.0)
        asked.append((run, device_type))
        return {"loss": 2.0}

    monkeypatch.setattr("sonew_perf.training.jax.ask.train_in_jax", fake)
    run = replace(RUNS[0], framework="jax")
    ((entry,), _) = entries_of([run], [])
    assert (asked, trained) == ([(run, "cpu")], [])
    assert (entry["loss"], entry["framework"]) == (2.0, "jax")
    assert {name: entry["machine"][name] for name in ("jax", "jaxlib", "optax")} == {
        name: installed_version(name) for name in ("jax", "jaxlib", "optax")
    }
    assert machine_for("torch", CPU) == describe(CPU)


def test_data_that_fills_no_batch_is_refused_with_the_fix() -> None:
    with pytest.raises(DataError, match=r"batch=23 is not allowed with 22 examples: .*--batch 22"):
        entries_of([make_run(batch=23)], [])


def test_what_is_finished_is_kept_under_a_name_of_the_commands_runs(tmp_path: Path) -> None:
    path = unfinished_path(tmp_path, RUNS, DATA, CPU)
    assert path == unfinished_path(tmp_path, list(RUNS), DATA, CPU)
    others = [unfinished_path(tmp_path, runs, DATA, CPU) for runs in (RUNS[:-1], RUNS[::-1])]
    others.append(unfinished_path(tmp_path, RUNS, replace(DATA, sha256="1f"), CPU))  # the same command with other data
    assert len({path, *others}) == 4
    assert path.parent == tmp_path / "training"
    first: Entry = {"loss": 1.0}
    second: Entry = {"loss": None}
    for entries in ([first], [first, second]):
        keep_unfinished(path, entries)
        assert read_entries(path) == entries


def test_a_command_that_was_begun_twice_keeps_what_both_have_finished(tmp_path: Path) -> None:
    path = unfinished_path(tmp_path, RUNS, DATA, CPU)
    mine: list[Entry] = [{"loss": 1.0}, {"loss": 2.0}]
    for entries in (mine[:1], [{"loss": 3.0}], mine):
        add_unfinished(path, entries)
    assert read_entries(path) == [{"loss": 1.0}, {"loss": 3.0}, {"loss": 2.0}]


def test_a_place_that_cannot_be_written_is_named_with_the_option(tmp_path: Path) -> None:
    (tmp_path / "training").write_text("")
    with pytest.raises(RecordError, match=r"training/x\.json cannot be written: .*--store"):
        keep_unfinished(tmp_path / "training" / "x.json", [])
