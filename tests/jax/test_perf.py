"""The processes that time JAX, as functions: torch stays out of them."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from sonew_perf.jax.peers import leaves, prepare
from sonew_perf.jax.request import ADAMW, TRITON, XLA, JaxTiming, Method
from sonew_perf.jax.timing import clock, main, time_case
from sonew_perf.steps.workloads import Workload

SMALL = Workload("small", ((20, 30), (7,)))
METHODS = Method(family=ADAMW), Method(band=1, backend=XLA), Method(band=1, backend=TRITON)
TIMING = JaxTiming(workload=SMALL, methods=METHODS, device="cpu", rounds=7)


@pytest.fixture(scope="module")
def timed() -> dict[str, Any]:
    return time_case(TIMING)


def test_every_method_keeps_its_samples_and_is_a_multiple_of_adamw(timed: dict[str, Any]) -> None:
    assert timed["workload"] == {"name": "small", "tensors": 2, "elements": 607, "dtype": "float32"}
    entries = {entry["case"]: entry for entry in timed["entries"]}
    assert list(entries) == [ADAMW, "SONew band 1, XLA"]
    for entry in entries.values():
        assert len(entry["samples_ms"]) == 7
        assert entry["median_ms"] == pytest.approx(statistics.median(entry["samples_ms"]), rel=1e-4)
        assert set(entry["against"]) == {timed["baseline"]} == {ADAMW}
    ours = entries["SONew band 1, XLA"]
    assert (ours["state_bytes"], ours["settings"]) == (607 * 12 + 4, {"family": "SONew", "band": 1, "backend": "reference"})
    assert ours["peak_bytes"] >= ours["state_bytes"] + 2 * 607 * 4
    assert (timed["device_peak_bytes"], timed["machine"]["type"], timed["machine"]["jax"]) == (None, "cpu", jax.__version__)
    json.dumps(timed, allow_nan=False)


def test_a_method_that_cannot_run_is_a_reason(timed: dict[str, Any]) -> None:
    assert list(timed["failures"]) == ["SONew band 1, Triton"]
    assert timed["failures"]["SONew band 1, Triton"].startswith("BackendUnavailableError: backend='triton'")


def test_a_case_of_which_nothing_runs_says_why() -> None:
    answer = time_case(JaxTiming(workload=SMALL, methods=METHODS[-1:], device="cpu", rounds=7))
    assert (answer["entries"], len(answer["failures"])) == ([], 1)


def test_a_timed_step_is_a_step_that_donates_what_it_steps() -> None:
    device = jax.devices("cpu")[0]
    made = prepare(METHODS[1], SMALL, leaves(SMALL, device, 1), device)
    given = jax.tree.leaves(made.carried)
    assert clock(made, 3) > 0
    assert all(leaf.is_deleted() for leaf in given)
    assert int(made.carried[1][0].count) == 2 + 3
    assert np.isfinite(np.asarray(made.carried[0][0])).all()
    assert not np.array_equal(np.asarray(made.carried[0][0]), np.asarray(leaves(SMALL, device, 0)[0]))


def test_a_request_travels_as_text(tmp_path: Path) -> None:
    assert JaxTiming.from_json(TIMING.to_json()) == TIMING
    path = tmp_path / "result.json"
    main(JaxTiming(workload=SMALL, methods=METHODS[:1], device="cpu", rounds=7).to_json(), str(path))
    assert [entry["case"] for entry in json.loads(path.read_text())["entries"]] == [ADAMW]
