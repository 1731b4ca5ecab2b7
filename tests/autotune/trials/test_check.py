"""The check before the clock: right results pass, each kind of wrong one is caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from sonew.backends import reference_torch
from sonew_autotune.problems import Case
from sonew_autotune.trials import check
from sonew_autotune.trials.check import WrongResultError, check_config, check_lengths
from sonew_kernels.spec import SPECS

LENGTHS = (0, 1, 2, 3, check.PRIME)
CONFIG = SPECS["cpu"].default(1)


def _case(band: int = 1, dtype: str = "float32", state: str = "float32") -> Case:
    plain = Case(name="x", shapes=((8,),), device="cpu", band=band)
    return replace(plain, param_dtype=dtype, grad_dtype=dtype, state_dtype=state, direction_dtype=state)


@pytest.mark.parametrize(
    ("band", "dtype", "state"),
    [
        (1, "float32", "float32"),
        (4, "float32", "bfloat16"),
        (2, "bfloat16", "bfloat16"),
        (1, "float16", "float32"),
        (16, "float32", "float32"),
    ],
)
def test_the_cpu_backend_passes_at_its_own_edges(band: int, dtype: str, state: str) -> None:
    config = {**SPECS["cpu"].default(band), "segment": 4096}
    check_config(_case(band, dtype, state), "cpu", "cpu", config)


def test_lengths_lie_around_every_edge() -> None:
    assert check_lengths(100, 4) == (0, 1, 4, 5, check.PRIME, 99, 101, 207)
    assert max(check_lengths(10**9, 4)) <= check.LARGEST_CHECKED + 7


def _planted(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Any], None]) -> None:
    """Let the candidate be the reference, with something done to its leaves after each update."""

    class Spoiled(reference_torch.StepGroup):
        def update(self) -> None:
            super().update()
            spoil(self._leaves)

    def plan_with(case: Case, *_: object) -> Any:
        class _Plan:
            problem = case.problem

        return _Plan

    monkeypatch.setattr(check, "plan_with", plan_with)
    monkeypatch.setattr(check, "load_step_group", lambda _plan: Spoiled)


def test_the_reference_itself_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    _planted(monkeypatch, lambda _leaves: None)
    check_config(_case(), "cpu", "cpu", CONFIG, lengths=LENGTHS)


def _nudge(leaves: Any) -> None:
    leaves[-1].param[17].add_(0.01)


def _forget_halo(leaves: Any) -> None:
    leaves[-1].stats[1, 500] = 0


def _leave_poison(leaves: Any) -> None:
    leaves[-1].momentum[-1] = torch.nan


def _count_twice(leaves: Any) -> None:
    leaves[-1].count.add_(1)


def _write_behind_the_end(leaves: Any) -> None:
    tensor = leaves[1].momentum
    torch.as_strided(tensor, (2,), (1,), tensor.storage_offset())[1] = 0.0


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (_nudge, r"param of a tensor of 1009 elements differs from the reference at \(17,\)"),
        (_forget_halo, r"stats of a tensor of 1009 elements differs .* at \(1, 500\)"),
        (_leave_poison, r"momentum of a tensor of 1009 .*\(1008,\): got nan"),
        (_count_twice, "count of a tensor of 1009 elements"),
        (_write_behind_the_end, "1 elements outside the tensors were written"),
    ],
)
def test_a_planted_error_is_named(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Any], None], match: str) -> None:
    _planted(monkeypatch, spoil)
    with pytest.raises(WrongResultError, match=match):
        check_config(_case(), "cpu", "cpu", CONFIG, lengths=LENGTHS)
