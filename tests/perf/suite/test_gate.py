from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from sonew.errors import InvalidConfigError
from sonew_autotune.trials.check import WrongResultError
from sonew_perf.steps.cases import COPY, TimedCase, Wanted, adamw_wanted, sonew_wanted
from sonew_perf.steps.workloads import Workload, one_tensor
from sonew_perf.suite import gate
from sonew_perf.suite.gate import check_case, ready_cases
from sonew_perf.suite.one import measure_one
from sonew_perf.suite.truth import Arrays, WrongStepError, check_step
from tests.perf.suite.made import SIZE

CPU = torch.device("cpu")
SMALL = one_tensor(SIZE)
STATE = "bfloat16"


def test_what_steps_a_case_is_checked_with_its_own_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    case = sonew_wanted(1, tuning="off", state=STATE).build(SMALL, CPU)
    case.work()
    asked = []
    monkeypatch.setattr(gate, "check_config", lambda *arguments: asked.append(arguments))
    check_case(case)
    ((small, backend, kernel, config),) = asked
    assert (small.device, small.band, small.state_dtype, small.direction_dtype) == ("cpu", 1, STATE, STATE)
    assert (backend, kernel, config) == ("cpu", "cpu", {"segment": 16384, "block": 1024, "threads": 0})


def test_the_plain_reference_is_held_to_float64_and_a_wrong_step_is_found() -> None:
    case = sonew_wanted(2, backend="reference").build(one_tensor(5), CPU)
    case.work()
    check_case(case)
    right = gate._plain_stepper(2, "reference", CPU)

    def wrong(params: Arrays, grads: Sequence[Arrays]) -> Arrays:
        stepped = [np.array(param) for param in right(params, grads)]
        stepped[-1][700] *= 1.01
        return stepped

    with pytest.raises(WrongStepError, match=r"element 700 of a tensor of 1009 elements is .*, the reference in float64 says"):
        check_step(2, wrong)

    def poisoned(params: Arrays, grads: Sequence[Arrays]) -> Arrays:
        return [np.full_like(param, np.nan) for param in right(params, grads)]

    with pytest.raises(WrongStepError, match="is nan"):
        check_step(0, poisoned)


def _planted(case: TimedCase) -> None:
    if "band 1" in case.name:
        msg = "param of a tensor of 5 elements differs"
        raise WrongResultError(msg)


def test_a_wrong_case_is_not_timed_and_the_others_are() -> None:
    wanted = [adamw_wanted("fused"), COPY, sonew_wanted(0), sonew_wanted(1)]
    entries = measure_one(SMALL, wanted, CPU, rounds=7, check=_planted)
    assert [entry["case"] for entry in entries] == ["AdamW fused", "copy", "SONew band 0", "SONew band 1"]
    assert [entry.get("status", "done") for entry in entries] == ["done", "done", "done", "failed"]
    failed = entries[-1]
    assert failed["reason"] == "wrong: param of a tensor of 5 elements differs"
    assert "samples_ms" not in failed
    assert (failed["settings"]["band"], failed["workload"]["elements"]) == (1, SIZE)


def test_a_case_that_raises_is_its_own_result_and_wrong_use_is_the_callers() -> None:
    def broken(_workload: Workload, _device: torch.device) -> TimedCase:
        msg = "CUDA out of memory"
        raise torch.cuda.OutOfMemoryError(msg)

    def misused(_workload: Workload, _device: torch.device) -> TimedCase:
        msg = "band=-1 is not allowed"
        raise InvalidConfigError(msg)

    ready, reasons = ready_cases([Wanted("broken", {}, broken), COPY], SMALL, CPU)
    assert ([case.name for case in ready], reasons) == (["copy"], {"broken": "out of memory: CUDA out of memory"})
    with pytest.raises(InvalidConfigError):
        ready_cases([Wanted("misused", {}, misused)], SMALL, CPU)
