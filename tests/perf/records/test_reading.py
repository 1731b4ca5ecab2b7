from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonew_perf.errors import RecordError
from sonew_perf.records.machines import machine_of
from sonew_perf.records.model import Point, Run, Series
from sonew_perf.records.reading import read_record
from sonew_perf.records.runs import BASELINES
from tests.perf.records.made import BEGIN, MACHINE, read_run, step_entry

SAMPLES = [3.0, 1.0, 2.0, 5.0, 4.0]
Entries = list[dict[str, Any]]


def _read(folder: Path, entries: Any, name: str = "record", **document: Any) -> tuple[Run, list[Series], list[Point]]:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"schema_version": 1, "entries": entries, **document}))
    return read_run(path, origin="store")


def _samples(entry: dict[str, Any]) -> list[float]:
    samples: list[float] = entry["samples_ms"] if "samples_ms" in entry else entry["samples"]
    return samples


@pytest.mark.parametrize("path", sorted(BASELINES.glob("*.json")), ids=lambda path: path.stem)
def test_every_committed_record_is_read_and_its_medians_are_those_of_its_samples(path: Path) -> None:
    document = json.loads(path.read_text())
    if document.get("kind") == "gpu run":
        entries = [entry for unit in document["entries"] for entry in unit["result"].get("entries", []) if "samples_ms" in entry]
    else:
        entries = document["entries"]
    run, series, points = read_run(path, origin="baseline")
    assert (run.id, run.origin, run.pinned) == (path.stem, "baseline", True)
    own = document.get("run", document)
    dates = [own["date"]] if "date" in own else [entry["date"] for entry in entries]
    assert datetime.fromisoformat(run.date) == min(map(datetime.fromisoformat, dates))
    assert len({one.id for one in series}) == len(series) == len(points)
    timed = [point for one, point in zip(series, points, strict=True) if len(point.samples) > 1 and one.unit != "bytes"]
    entries = [entry for entry in entries if entry["kind"] != "training search"]  # gives no points
    if not entries or entries[0]["kind"] == "training run":
        expected = sorted(entry.get("step_s") or entry["wall_s"] / entry["steps"] for entry in entries)
        assert sorted(seconds for point in points for seconds in point.samples) == expected
        assert all(point.median == pytest.approx(statistics.median(point.samples), rel=1e-12) for point in points)
        return
    assert [list(point.samples) for point in timed] == [_samples(entry) for entry in entries]
    for point, entry in zip(timed, entries, strict=True):
        assert point.median == pytest.approx(statistics.median(_samples(entry)), rel=1e-12)
        assert point.median == pytest.approx(entry.get("median_ms", entry.get("median")), rel=1e-4), "as the record itself says it"
        assert (point.q1, point.q3) == pytest.approx(tuple(np.percentile(_samples(entry), (25, 75))), rel=1e-12)
        assert point.against == entry["against"]
    phases = [value for entry in entries for value in entry.get("phases_ms", {}).values()]
    assert [point.median for point in points if not point.samples] == phases
    memory = [entry["peak_bytes"] for entry in entries if entry.get("peak_bytes")]
    assert [point.median for one, point in zip(series, points, strict=True) if one.measure == "peak memory"] == memory


def test_an_entry_is_a_series_for_the_step_one_for_its_memory_and_one_per_phase(tmp_path: Path) -> None:
    entry = step_entry("SONew band 1, untuned", 4096, SAMPLES, peak_bytes=1000, phases_ms={"direction": 0.5, "update": 0.25})
    entry["settings"]["tuning"] = "off"
    run, series, points = _read(tmp_path, [entry])
    assert (run.id, run.date, run.command, run.commit, run.load) == ("record", BEGIN.isoformat(), "", "", 0.5)
    assert [(one.kernel, one.measure, one.unit) for one in series] == [
        ("step", "time", "ms"),
        ("step", "peak memory", "bytes"),
        ("direction", "time", "ms"),
        ("update", "time", "ms"),
    ]
    assert {(one.case, one.framework, one.workload, one.elements, one.dtype, one.band, one.variant) for one in series} == {
        ("SONew band 1, untuned", "torch", "one tensor", 4096, "float32", 1, "tuning=off")
    }
    assert [(point.median, point.q1, point.q3, point.samples) for point in points] == [
        (3.0, 2.0, 4.0, tuple(SAMPLES)),
        (1000.0, 1000.0, 1000.0, (1000.0,)),
        (0.5, None, None, ()),
        (0.25, None, None, ()),
    ]
    facts = points[0].facts
    assert (facts["config"], facts["provenance"]) == ("block=1024 segment=16384 threads=0", "analytic default")
    assert (facts["backend"], facts["source_hash"], facts["state_bytes"]) == ("cpu", "0123456789abcdef", 8 * 4096)
    assert run.machine.details == {"python": "3.11.7", "torch": "2.13.0+cpu"}


def test_what_failed_or_was_skipped_is_a_point_of_the_same_series_with_its_reason(tmp_path: Path) -> None:
    done = _read(tmp_path, [step_entry("copy", 8, SAMPLES), step_entry("SONew band 1", 8, SAMPLES)])
    told: dict[str, Any] = {"samples_ms": None, "status": "failed", "reason": "out of memory"}
    failed = _read(tmp_path, [step_entry("copy", 8, [], **told), step_entry("SONew band 1", 8, [], **told | {"status": "skipped"})])
    assert failed[1] == done[1]
    assert [(point.status, point.reason, point.median, point.samples) for point in failed[2]] == [
        ("failed", "out of memory", None, ()),
        ("skipped", "out of memory", None, ()),
    ]


@pytest.mark.parametrize(
    ("entry", "kernel", "framework", "unit", "variant"),
    [
        ({"kind": "jax step time", "case": "SONew band 1, XLA", "settings": {"band": 1, "backend": "reference"}}, "step", "jax", "ms", ""),
        ({"kind": "host time", "case": "AdamW, new", "settings": {"gradients": "new"}, "band": 1}, "host", "torch", "ms", "gradients=new"),
        ({"kind": "phase time", "kernel": "norms", "case": "SONew band 1"}, "norms", "torch", "ms", ""),
        ({"kind": "import time", "case": "sonew.torch", "samples_ms": None, "samples": SAMPLES, "unit": "s"}, "import", "", "s", ""),
        ({"kind": "tuner time", "case": "trial", "samples_ms": None, "samples": SAMPLES, "unit": "s"}, "tuner", "", "s", ""),
        ({"kind": "compile time", "case": "cpu", "samples_ms": None, "samples": SAMPLES, "unit": "s"}, "compile", "", "s", ""),
    ],
)
def test_every_kind_of_entry_has_its_kernel_framework_and_unit(
    tmp_path: Path, entry: dict[str, Any], kernel: str, framework: str, unit: str, variant: str
) -> None:
    plain = {"settings": {}, "date": BEGIN.isoformat(), "machine": dict(MACHINE), "samples_ms": SAMPLES}
    _, series, points = _read(tmp_path, [plain | entry])
    assert (series[0].kernel, series[0].framework, series[0].unit, series[0].variant) == (kernel, framework, unit, variant)
    assert points[0].median == 3.0
    assert series[0].band == (1 if entry["case"].startswith("SONew") and "settings" in entry else None)


def test_what_a_run_has_twice_stays_apart_and_says_so(tmp_path: Path) -> None:
    _, series, points = _read(tmp_path, [step_entry("copy", 8, [number]) for number in (1.0, 2.0, 3.0)])
    assert [one.variant for one in series] == ["", "repeat=2", "repeat=3"]
    assert [(point.series, point.median) for point in points] == [
        (one.id, value) for one, value in zip(series, (1.0, 2.0, 3.0), strict=True)
    ]


def test_a_machine_is_known_again_whatever_its_versions(tmp_path: Path) -> None:
    def identity(name: str, **machine: Any) -> str:
        return _read(tmp_path, [step_entry("copy", 8, SAMPLES, machine={**MACHINE, **machine})], name)[0].machine.id

    same = identity("a")
    assert len(same) == 8
    assert same == identity("b", torch="3.0", id="ffffffff")
    assert len({same, identity("c", threads=4), identity("d", device="Other"), identity("e", type="cuda")}) == 4
    assert identity("f", type="cuda", threads=9) == identity("g", type="gpu", threads=3)


def test_the_search_before_a_training_run_gives_no_points(tmp_path: Path) -> None:
    searched = {"kind": "training search", "method": "adam", "value": None, "trials": [{"settings": {"lr": 0.1}, "value": 1.0}]}
    trained = {"kind": "training run", "task": "autoencoder", "method": "adam", "lr": 0.1, "steps": 10, "batch": 50, "wall_s": 20.0}
    dated = {"machine": MACHINE, "date": BEGIN.isoformat()}
    _, alone, _ = _read(tmp_path, [trained | dated])
    run, series, points = _read(tmp_path, [searched | dated, trained | dated, searched | dated])
    assert (series, len(points)) == (alone, 1)
    assert run.date == BEGIN.isoformat()
    assert _read(tmp_path, [searched | dated])[1:] == ([], [])


def _gpu_record(units: Entries, **more: Any) -> dict[str, Any]:
    device = {
        "type": "cuda",
        "name": "NVIDIA H100",
        "capability": "9.0",
        "memory_bytes": 8,
        "driver": "580",
        "clocks": {"clocks.sm": "1 MHz"},
    }
    return {
        "schema_version": 1,
        "kind": "gpu run",
        "date": "2026-11-27T01:00:00+01:00",
        "command": "sonew-perf gpu",
        "device": device,
        "versions": {"torch": "2.13.0"},
        "sources": {"commit": "unknown", "modified": None},
        "not_quotable": "",
        "entries": units,
        **more,
    }


def _unit(name: str, stage: str, status: str = "done", **result: Any) -> dict[str, Any]:
    return {"unit": name, "stage": stage, "status": status, "reason": "", "seconds": 2.5, "date": "", "result": result}


def _gpu_entry(case: str, **settings: Any) -> dict[str, Any]:
    return {"case": case, "settings": settings, "samples_ms": SAMPLES, "against": {}, "state_bytes": 0, "peak_bytes": None, "phases_ms": {}}


def test_a_gpu_record_gives_the_cases_of_its_units_and_the_units_that_came_to_nothing(tmp_path: Path) -> None:
    workload = {"name": "one tensor", "tensors": 1, "elements": 2**26, "dtype": "float32"}
    fused = _gpu_entry("AdamW fused, eager", family="AdamW fused", way="eager", state="float32")
    bf16 = {"family": "SONew", "state": "bfloat16", "band": 1}
    cases = [
        fused,
        _gpu_entry("SONew band 1 bf16, graph", way="graph", **bf16),
        _gpu_entry("SONew band 1, direction", way="direction", **bf16),
    ]
    jax = _gpu_entry("SONew band 1, Triton", family="SONew", band=1, backend="triton")
    jax_machine = {"device": "NVIDIA H100", "type": "gpu", "threads": 16}
    path = tmp_path / "gpu.json"
    units = [
        _unit("tests on the device", "ladder", "failed"),
        _unit("tune band 1", "tune", tuned=1),
        _unit("64 Mi, band 1", "bench", workload=workload, entries=cases, failures={"SONew band 1, graph": "out of memory"}),
        _unit("64 Mi, peers", "bench", workload=workload, entries=[fused], failures={}),
        _unit("JAX, 64 Mi", "jax", workload=workload, machine=jax_machine, entries=[jax], failures={"SONew band 1, XLA": "slow"}),
        _unit("gpt2-small", "models", "unfinished"),
    ]
    path.write_text(json.dumps(_gpu_record(units, not_quotable="red")))
    run, series, points = read_run(path, origin="store")
    assert (run.date, run.commit, run.seconds, run.machine.name) == ("2026-11-27T00:00:00+00:00", "", 15.0, "NVIDIA H100 (cuda)")
    assert run.machine.details["driver"] == "580"
    found = [(s.kernel, s.case, s.dtype, s.band, s.framework, s.variant, p.status) for s, p in zip(series, points, strict=True)]
    half = "float32, bfloat16 state"
    assert found == [
        ("ladder", "tests on the device", "", None, "", "", "failed"),
        ("step", "AdamW fused, eager", "float32", None, "torch", "beside=band 1", "done"),
        ("step", "SONew band 1 bf16, graph", half, 1, "torch", "way=graph", "done"),
        ("direction", "SONew band 1, direction", half, 1, "torch", "", "done"),
        ("step", "SONew band 1, graph", "float32", 1, "torch", "way=graph", "failed"),
        ("step", "AdamW fused, eager", "float32", None, "torch", "beside=peers", "done"),
        ("step", "SONew band 1, Triton", "float32", 1, "jax", "", "done"),
        ("step", "SONew band 1, XLA", "float32", 1, "jax", "backend=reference", "failed"),
        ("models", "gpt2-small", "", None, "", "", "skipped"),
    ]
    assert {one.machine for one in series} == {run.machine.id}
    assert points[4].reason == "out of memory"
    assert points[1].facts["not_quotable"] == "red"
    assert read_record(path, origin="store").entries[1]["samples_ms"] == SAMPLES


Change = Callable[[dict[str, Any]], object]
HOSTILE: list[tuple[Change, str]] = [
    (lambda d: d.update(schema_version=2), "schema_version is 2, expected 1"),
    (lambda d: d.update(schema_version=True), "schema_version is True"),
    (lambda d: d.update(entries={}), "entries is a JSON dict, expected a list"),
    (lambda d: d.update(entries=[3]), "entries 1 is 3, expected an object"),
    (lambda d: d.update(run={"id": "../../x"}), "the run's id is '../../x', expected the file's name"),
    (lambda d: d.update(run={"id": "other"}), "the run's id is 'other'"),
    (lambda d: d.update(run={"commit": "main; rm -rf"}), "commit is 'main; rm -rf', expected 40 hexadecimal digits"),
    (lambda d: d.update(run={"label": 7}), "label is 7, expected text"),
    (lambda d: d.update(run={"modified": "yes"}), "modified is 'yes'"),
    (lambda d: d.update(run={"date": "yesterday"}), "date is 'yesterday'"),
    (lambda d: d.update(run={"command": "x" * 10**6}), "command has 1000000 characters"),
    (lambda d: d["entries"][0].update(case="<script>alert(1)</script>"), "case is '<script>alert"),
    (lambda d: d["entries"][0].update(case="a\x1b[2Jb"), "case is 'a"),
    (lambda d: d["entries"][0].update(case="x" * 10**5), "case has 100000 characters"),
    (lambda d: d["entries"][0].update(case=None), "case is missing"),
    (lambda d: d["entries"][0].update(kind=None), "kind is missing"),
    (lambda d: d["entries"][0].update(date=None), "date is missing"),
    (lambda d: d["entries"][0].update(machine=None), "machine is None"),
    (lambda d: d["entries"][0].update(machine={"device": "x", "type": "abacus"}), "type is 'abacus', expected one of"),
    (
        lambda d: d["entries"][0].update(samples_ms=[1.0, -1.0]),
        "samples_ms is a JSON list, expected a list of numbers that are not negative",
    ),
    (lambda d: d["entries"][0].update(samples_ms=[1.0, "2"]), "samples_ms is a JSON list"),
    (lambda d: d["entries"][0].update(samples_ms=[True]), "samples_ms is a JSON list"),
    (lambda d: d["entries"][0].update(samples_ms=[1e300]), "samples_ms is a JSON list"),
    (lambda d: d["entries"][0].update(samples_ms=[]), "expected numbers, or status failed or skipped"),
    (lambda d: d["entries"][0].update(samples_ms=[0.0]), "the median is 0 ms"),
    (lambda d: d["entries"][0].update(samples_ms=[float("nan")]), "NaN is no JSON number"),
    (lambda d: d["entries"][0].update(samples_ms=None, samples=[1], unit="furlongs"), "unit is 'furlongs', expected one of"),
    (lambda d: d["entries"][0].update(status="fine"), "status is 'fine', expected one of"),
    (lambda d: d["entries"][0].update(peak_bytes=-1), "peak_bytes is -1"),
    (lambda d: d["entries"][0].update(phases_ms={"<b>": 1}), "phase is '<b>'"),
    (lambda d: d["entries"][0].update(against={"x": {"median": "1"}}), "median is '1'"),
    (lambda d: d["entries"][0].update(against={"<i>": {"median": 1}}), "peer is '<i>'"),
    (lambda d: d["entries"][0].update(settings={"mode": "<b>"}), "mode is '<b>'"),
    (lambda d: d["entries"][0].update(settings={"a": 1, "<b>": 2}), "variant is '<b>=2, a=1'"),
    (lambda d: d["entries"][0].update(settings={"band": 1.5}), "band is 1.5, expected a whole number"),
    (lambda d: d["entries"][0].update(plans=[{"config": 3}]), "config is 3, expected an object"),
]


@pytest.mark.parametrize(("change", "said"), HOSTILE, ids=[said[:40] for _, said in HOSTILE])
def test_what_no_record_can_say_is_refused_in_one_line_with_the_place(tmp_path: Path, change: Change, said: str) -> None:
    document: dict[str, Any] = {"schema_version": 1, "entries": [step_entry("copy", 8, SAMPLES)]}
    change(document)
    path = tmp_path / "record.json"
    path.write_text(json.dumps(document))
    with pytest.raises(RecordError, match=said.replace("[", r"\[").replace("(", r"\(")) as raised:
        read_run(path, origin="store")
    text = str(raised.value)
    assert text.isprintable()
    assert len(text) < 500
    assert text.endswith("Move it away, or mend it.")


@pytest.mark.parametrize("stem", ["a b", "<b>", ".hidden", "x" * 200])
def test_a_file_name_that_is_no_id_is_refused(tmp_path: Path, stem: str) -> None:
    with pytest.raises(RecordError, match="expected the file's name"):
        _read(tmp_path, [step_entry("copy", 8, SAMPLES)], stem)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(RecordError, match="is no record"):
            read_run(path, origin="store")


def test_a_machine_is_the_same_under_other_versions_and_another_one_with_other_instruction_sets() -> None:
    """A hypervisor may name two generations alike."""
    plain = {"device": "AMD EPYC", "type": "cpu", "threads": 2}
    old, new = machine_of({**plain, "flags": "avx2"}), machine_of({**plain, "flags": "avx2 avx512f"})
    assert len({machine_of(plain).id, old.id, new.id, machine_of({**plain, "threads": 4}).id}) == 4
    assert machine_of({**plain, "flags": "avx2", "torch": "9"}).id == old.id
    gpu = {"device": "H100", "type": "cuda", "threads": 2}
    assert machine_of(gpu).id == machine_of({**gpu, "threads": 64, "flags": "avx2"}).id
