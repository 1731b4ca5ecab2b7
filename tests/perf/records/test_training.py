"""Entries of training runs as series and points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sonew_perf.errors import RecordError
from sonew_perf.records.files import write_entries
from sonew_perf.records.model import Point, Run, Series
from tests.perf.records.made import BEGIN, MACHINE, read_run


def _read(folder: Path, entries: list[dict[str, Any]]) -> tuple[Run, list[Series], list[Point]]:
    path = folder / "record.json"
    write_entries(path, entries)
    return read_run(path, origin="store")


def test_training_runs_are_one_series_per_method_with_a_sample_each(tmp_path: Path) -> None:
    def entry(method: str, wall: float, **more: Any) -> dict[str, Any]:
        told = {"kind": "training run", "task": "autoencoder", "method": method, "band": 1, "lr": wall, "seed": 0, "steps": 10, "batch": 50}
        return told | {"wall_s": wall, "optimizer_s": 1.0, "machine": dict(MACHINE), "date": BEGIN.isoformat(), "plans": [], **more}

    record = [entry("sonew", 30.0), entry("adamw", 10.0, band=0), entry("sonew", 20.0), entry("sonew", 0.0, status="failed", reason="NaN")]
    _, series, points = _read(tmp_path, record)
    assert [(one.case, one.band, one.kernel, one.unit) for one in series] == [
        ("sonew band 1", 1, "training", "s"),
        ("adamw", None, "training", "s"),
    ]
    assert [point.samples for point in points] == [(3.0, 2.0), (1.0,)]
    assert (points[0].median, points[0].facts["training_runs"], points[0].facts["rates"]) == (2.5, 2, "20 30")
    alone = _read(tmp_path, record[3:])[2]
    assert [(point.status, point.reason) for point in alone] == [("failed", "NaN")]


def _trained(method: str, **more: Any) -> dict[str, Any]:
    """An entry of `sonew-perf train` in its newer form, with a mean loss of every five steps."""
    told: dict[str, Any] = {"kind": "training run", "task": "autoencoder", "framework": "torch", "method": method, "label": method}
    told |= {"precision": "fp32", "band": None, "lr": 0.1, "seed": 0, "steps": 10, "batch": 50}
    told |= {
        "losses": [2.0, None],
        "losses_every": 5,
        "loss": None,
        "wall_s": 30.0,
        "step_s": 2.5,
        "optimizer_s": 10.0,
        "optimizer_step_s": 0.5,
        "machine": dict(MACHINE),
    }
    return told | {"date": BEGIN.isoformat(), "plans": [], **more}


def test_a_training_runs_series_is_what_its_steps_do_and_its_time_the_median_step(tmp_path: Path) -> None:
    plain = {"lr": 0.1, "band": 4, "chain": "tensor", "eps_rel": 0.0, "gamma": None, "graft": "adam", "layers": "all"}
    other = plain | {"chain": 512, "eps_rel": 1e-3, "gamma": 0.1, "graft": "sgd", "layers": "no-embeddings"}
    record = [
        _trained("sonew", band=4, hyper=plain),
        _trained("sonew", band=4, hyper=plain, seed=1, step_s=1.5),
        _trained("sonew", band=4, hyper=other, precision="bf16-state"),
        _trained("sonew", band=4, hyper=plain, precision="bf16-rounded"),
        _trained("adam", framework="jax", precision="bf16"),
    ]
    _, series, points = _read(tmp_path, record)
    assert [(one.case, one.framework, one.dtype, one.variant) for one in series] == [
        ("sonew band 4", "torch", "float32", "batch=50"),
        (
            "sonew band 4",
            "torch",
            "float32, bfloat16 state",
            "batch=50, chain=512, eps_rel=0.001, gamma=0.1, graft=sgd, layers=no-embeddings",
        ),
        ("sonew band 4", "torch", "bfloat16", "batch=50, rounding=stochastic"),
        ("adam", "jax", "bfloat16", "batch=50"),
    ]
    assert (points[0].samples, points[0].facts["optimizer_seconds_per_step"], points[0].facts["seeds"]) == ((2.5, 1.5), 0.5, "0 1")


WRONG = [("precision", "fp8"), ("losses_every", 0), ("losses", [True]), ("step_s", -1.0), ("hyper", 3)]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_a_training_run_that_is_not_one_is_refused(tmp_path: Path, field: str, value: Any) -> None:
    with pytest.raises(RecordError, match=rf"entry 1[:,] {field}"):
        _read(tmp_path, [_trained("adam", **{field: value})])
