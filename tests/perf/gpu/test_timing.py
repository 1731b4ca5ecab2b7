from __future__ import annotations

import statistics
from typing import Any

import pytest
import torch

from sonew_autotune.trials.outcome import Failure
from sonew_perf.gpu import timing
from sonew_perf.gpu.run import run_timing
from sonew_perf.gpu.timing import Answer, Broken, Request, Timing, make_timer, reason_of, time_case
from sonew_perf.steps import peers
from sonew_perf.steps.cases import fixed_tensors
from sonew_perf.steps.peers import COPY, DIRECTION, EAGER, FUSED, GRAPH, SONEW, Family, Method
from sonew_perf.steps.workloads import Workload

SMALL = Workload("small", ((40, 25),))
OURS = Method(family=SONEW, band=1, ways=(EAGER, GRAPH, DIRECTION))
ODD = Method(family="odd", band=0, ways=(EAGER,))


def _case(*methods: Method) -> Timing:
    return Timing(workload=SMALL, methods=methods, device="cpu", rounds=7)


def _failing(error: Exception) -> Family:
    def make(*_arguments: object) -> torch.optim.Optimizer:
        raise error

    return Family(make)


@pytest.fixture(scope="module")
def timed() -> dict[str, Any]:
    answer = time_case(Request(_case(Method(family=COPY, ways=(EAGER,)), Method(family=FUSED), OURS)))
    assert isinstance(answer, dict)
    return answer


def test_every_case_keeps_its_samples_beside_its_peers_launched_alike(timed: dict[str, Any]) -> None:
    assert (timed["workload"], timed["failures"]) == ({"name": "small", "tensors": 1, "elements": 1000, "dtype": "float32"}, {})
    entries = {entry["case"]: entry for entry in timed["entries"]}
    assert list(entries) == ["copy", "AdamW fused, eager", "AdamW fused, graph", *OURS.case_names]
    for entry in entries.values():
        assert len(entry["samples_ms"]) == 7
        assert entry["median_ms"] == pytest.approx(statistics.median(entry["samples_ms"]), rel=1e-4)
    assert set(entries["SONew band 1, eager"]["against"]) == {"AdamW fused, eager", "copy"}
    assert set(entries["SONew band 1, graph"]["against"]) == {"AdamW fused, graph", "copy"}
    assert entries["SONew band 1, eager"]["peak_bytes"] >= entries["SONew band 1, eager"]["state_bytes"] + 2 * 4000
    assert set(entries["SONew band 1, eager"]["phases_ms"]) == {"prologue", "direction", "norms", "update"}


def test_the_share_of_the_copy_is_nominal_bytes_per_second_over_the_copys(timed: dict[str, Any]) -> None:
    entries = {entry["case"]: entry for entry in timed["entries"]}
    direction, copied = entries["SONew band 1, direction"], entries["copy"]
    rates = [(32 / own) / (8 / other) for own, other in zip(direction["samples_ms"], copied["samples_ms"], strict=True)]
    assert direction["copy_share"]["median"] == pytest.approx(statistics.median(rates), rel=1e-2)
    assert direction["copy_share"]["low"] <= direction["copy_share"]["median"] <= direction["copy_share"]["high"]
    assert entries["SONew band 1, eager"]["copy_share"] is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nmore"), "out of memory: CUDA out of memory. Tried"),
        (NotImplementedError("no such type"), "NotImplementedError: no such type"),
    ],
)
def test_what_fails_is_a_result_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    monkeypatch.setattr(peers, "FAMILIES", {**peers.FAMILIES, "odd": _failing(error)})
    outcome = run_timing(_case(ODD, Method(family=FUSED, ways=(EAGER,))), 60, start=lambda request, _: make_timer()(request))
    assert (outcome.status, outcome.reason) == ("done", "1 of 2 cases could not be timed")
    assert outcome.result["failures"]["odd band 0, eager"].startswith(said)
    assert [entry["case"] for entry in outcome.result["entries"]] == ["AdamW fused, eager"]


def test_a_case_of_which_nothing_ran_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "FAMILIES", {"odd": _failing(ValueError("never"))})
    outcome = run_timing(_case(ODD), 60, start=lambda request, _: make_timer()(request))
    assert (outcome.status, outcome.result["entries"]) == ("failed", [])


def test_an_error_outside_a_method_is_the_whole_cases() -> None:
    answer = make_timer()(Request(Timing(workload=SMALL, methods=(OURS,), device="abacus", rounds=7)))
    assert isinstance(answer, Failure)
    assert "abacus" in answer.message


@pytest.mark.parametrize(("usable", "way"), [(False, EAGER), (True, GRAPH)])
def test_on_a_gpu_a_failed_capture_or_a_dead_context_ends_the_process(monkeypatch: pytest.MonkeyPatch, usable: bool, way: str) -> None:
    """The GPU's part is played by stand-ins: which errors mean a fresh process is decided without one."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(timing, "_usable", lambda _device: usable)
    gpu = Timing(workload=SMALL, methods=(Method(family="odd", band=0, ways=(way,)),), device="cuda", rounds=7)
    failures: dict[str, str] = {}
    params = fixed_tensors(SMALL, torch.device("cpu"))

    def broken(*_arguments: object) -> torch.optim.Optimizer:
        msg = "an illegal memory access was encountered"
        raise RuntimeError(msg)

    family = Family(broken) if way == EAGER else Family(lambda _, tensors, _capturable: torch.optim.SGD(tensors, lr=1e-6))
    monkeypatch.setattr(peers, "FAMILIES", {"odd": family})
    if way == GRAPH:
        monkeypatch.setattr(peers.Prepared, "timed", broken)
    with pytest.raises(timing._BrokenProcessError) as caught:
        timing._ready_cases(Request(gpu), params, failures)
    assert caught.value.broken == Broken(gpu.case_names[0], "RuntimeError: an illegal memory access was encountered")


def test_the_others_are_timed_in_a_fresh_process_without_the_one_that_broke_it() -> None:
    seen: list[dict[str, str]] = []
    answers: list[Answer] = [Broken("SONew band 1, graph", "capture failed"), Broken("AdamW fused, graph", "also failed")]

    def start(request: Request, seconds: float) -> Answer:
        assert 0 < seconds <= 60
        seen.append(dict(request.broken))
        return answers.pop(0) if answers else make_timer()(request)

    outcome = run_timing(_case(Method(family=FUSED), OURS), 60, start=start)
    both = {"SONew band 1, graph": "capture failed", "AdamW fused, graph": "also failed"}
    assert seen == [{}, {"SONew band 1, graph": "capture failed"}, both]
    assert outcome.result["failures"] == both
    assert [entry["case"] for entry in outcome.result["entries"]] == [
        "AdamW fused, eager",
        "SONew band 1, eager",
        "SONew band 1, direction",
    ]


@pytest.mark.parametrize(("kind", "status"), [("timeout", "unfinished"), ("error", "failed")])
def test_a_process_without_an_answer_is_an_outcome(kind: Any, status: str) -> None:
    outcome = run_timing(_case(OURS), 60, start=lambda _request, _seconds: Failure(kind, "the worker process died (signal 11)"))
    assert (outcome.status, outcome.reason) == (status, "the worker process died (signal 11)")


def test_a_reason_is_one_line() -> None:
    assert reason_of(RuntimeError("\n\n  first\nsecond")) == "RuntimeError: first"
    assert reason_of(KeyError()) == "KeyError: "
