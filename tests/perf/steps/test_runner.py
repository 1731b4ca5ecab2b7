from __future__ import annotations

import json
import statistics

import pytest
import torch

from sonew_autotune.measure import Samples, paired_ratio
from sonew_perf.machine import describe
from sonew_perf.records.files import Entry, document
from sonew_perf.steps.cases import wanted_cases
from sonew_perf.steps.runner import measure
from sonew_perf.steps.workloads import one_tensor

CPU = torch.device("cpu")
SIZE = 3000
ROUNDS = 7


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    workload = one_tensor(SIZE)
    timed = [wanted.build(workload, CPU) for wanted in wanted_cases([1], ["off"], reference=True)]
    return measure(workload, timed, rounds=ROUNDS, device=CPU, machine=describe(CPU))


def _named(entries: list[Entry], name: str) -> Entry:
    return next(entry for entry in entries if entry["case"] == name)


def test_an_entry_keeps_its_samples_and_says_their_median(entries: list[Entry]) -> None:
    assert [entry["case"] for entry in entries] == ["AdamW fused", "AdamW foreach", "copy", "SONew band 1, untuned", "reference, band 1"]
    for entry in entries:
        assert len(entry["samples_ms"]) == ROUNDS
        assert entry["median_ms"] == pytest.approx(statistics.median(entry["samples_ms"]), rel=1e-4)
        assert entry["p20_ms"] <= entry["median_ms"] <= entry["p80_ms"]


def test_multiples_are_paired_with_the_peers_of_the_same_rounds(entries: list[Entry]) -> None:
    assert _named(entries, "AdamW fused")["against"]["AdamW fused"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    for entry in entries:
        for peer in ("AdamW fused", "copy"):
            pair = [Samples(tuple(e["samples_ms"])) for e in (entry, _named(entries, peer))]
            assert entry["against"][peer]["median"] == pytest.approx(paired_ratio(*pair).median, rel=1e-3)


def test_state_and_peak_memory_are_counted(entries: list[Entry]) -> None:
    word = 4
    assert _named(entries, "copy")["state_bytes"] == 0
    assert _named(entries, "copy")["peak_bytes"] is None
    assert _named(entries, "AdamW fused")["state_bytes"] == 2 * SIZE * word + word
    assert _named(entries, "SONew band 1, untuned")["state_bytes"] == 3 * SIZE * word + word
    for entry in entries:
        if entry["peak_bytes"] is not None:
            assert entry["peak_bytes"] >= entry["state_bytes"] + 2 * SIZE * word
    assert _named(entries, "reference, band 1")["peak_bytes"] > _named(entries, "SONew band 1, untuned")["peak_bytes"]


def test_an_entry_names_plan_machine_and_workload_and_is_json(entries: list[Entry]) -> None:
    ours = _named(entries, "SONew band 1, untuned")
    assert [plan["provenance"] for plan in ours["plans"]] == ["analytic default (tuning is off)"]
    assert set(ours["phases_ms"]) == {"prologue", "direction", "norms", "update"}
    assert ours["workload"] == {"name": "one tensor", "tensors": 1, "elements": SIZE, "dtype": "float32"}
    assert ours["machine"]["torch"] == torch.__version__
    assert ours["load_before"] >= 0
    assert json.loads(document(entries))["entries"] == entries
