from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sonew_autotune.trials.outcome import Failure
from sonew_perf.gpu import jax_part
from sonew_perf.gpu.jax_part import run_jax_ladder, run_jax_timing
from sonew_perf.gpu.plan import JaxLadder, Ladder
from sonew_perf.jax import ask as asking
from sonew_perf.jax.ask import ask, jax_gpu_problem
from sonew_perf.jax.request import ADAMW, TRITON, XLA, JaxTiming, Method
from sonew_perf.process import Finished
from sonew_perf.steps.workloads import one_tensor

METHODS = Method(family=ADAMW), Method(band=1, backend=XLA), Method(band=1, backend=TRITON)
TIMING = JaxTiming(workload=one_tensor(500), methods=METHODS, device="cpu", rounds=7)


@pytest.fixture(autouse=True)
def _looked_anew() -> Iterator[None]:
    jax_gpu_problem.cache_clear()
    yield
    jax_gpu_problem.cache_clear()


def test_a_case_is_timed_in_a_process_of_its_own_and_what_cannot_run_is_a_reason() -> None:
    outcome = run_jax_timing(TIMING, 120)
    assert (outcome.status, outcome.reason) == ("done", "1 of 3 cases could not be timed")
    assert [entry["case"] for entry in outcome.result["entries"]] == [ADAMW, "SONew band 1, XLA"]
    assert "BackendUnavailableError" in outcome.result["failures"]["SONew band 1, Triton"]
    assert run_jax_timing(TIMING, 0.01).status == "unfinished"


def test_a_process_that_fails_says_why() -> None:
    answer = ask(JaxTiming(workload=one_tensor(500), methods=METHODS, device="abacus", rounds=7), 60)
    assert isinstance(answer, Failure)
    assert answer.message == "KeyError: 'abacus'"


def _finished(status: int | None, said: str = "") -> Any:
    return lambda *_arguments: Finished(status, said)


def test_where_jax_sees_no_gpu_the_stage_waits_and_names_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "run_process", _finished(1, "Traceback\nRuntimeError: Unknown backend: 'gpu'"))
    outcomes = [run_jax_ladder(JaxLadder(), 60), run_jax_timing(JaxTiming(**{**_fields(TIMING), "device": "cuda"}), 60)]
    for outcome in outcomes:
        assert outcome.status == "unfinished"
        assert outcome.reason.startswith("JAX sees no GPU (RuntimeError: Unknown backend: 'gpu'); for NVIDIA's: pip install 'jax[cuda1")


def _fields(timing: JaxTiming) -> dict[str, Any]:
    return {name: getattr(timing, name) for name in ("workload", "methods", "device", "rounds")}


@pytest.mark.parametrize(("status", "said"), [(0, None), (None, "no answer after 60 s"), (3, "ended with status 3")])
def test_whether_jax_has_a_gpu_is_asked_in_a_process(monkeypatch: pytest.MonkeyPatch, status: int | None, said: str | None) -> None:
    monkeypatch.setattr(asking, "run_process", _finished(status))
    reason = jax_gpu_problem()
    assert (reason is None) if said is None else (said in str(reason))


def test_without_jax_that_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "installed_version", lambda _package: "not installed")
    assert jax_gpu_problem() == "JAX is not installed: pip install 'sonew[jax]'"
    assert ask(TIMING, 10) == Failure("error", "JAX is not installed: pip install 'sonew[jax]'")


def test_the_tests_of_the_stage_do_not_take_all_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = "import os\n\n\ndef test_it():\n    assert os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] == 'false'\n"
    (tmp_path / "test_one.py").write_text(code)
    monkeypatch.setattr(jax_part, "jax_gpu_problem", lambda: None)
    outcome = run_jax_ladder(JaxLadder(ladder=Ladder(tests=str(tmp_path), marker="not full")), 60)
    assert (outcome.status, outcome.reason) == ("done", "1 passed")
