"""Large groups, bfloat16 state and the widest band on a GPU, each against the reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sonew.config import Hyper
from sonew.layout import COUNT, MOMENTUM, STATS
from sonew.torch import SONew
from tests import expected
from tests.kernels.gpu.steps import RATES, SETTINGS, Data, Place, joined, run
from tests.tolerances import assert_close

WIDEST = 16
MISSING = 11  # a step in which the learning rate is not 0
HYPER = Hyper(beta1=0.9, beta2=0.95, eps_rel=1e-3, weight_decay=0.1)


def test_a_group_of_150_tensors_is_stepped_like_each_alone(place: Place) -> None:
    """Sizes from 1 to 150, every tenth thirty times as large, matrices among them; one in seven has no gradient in one step."""
    rng = np.random.default_rng(0)
    sizes = [int(size) * (30 if i % 10 == 0 else 1) for i, size in enumerate(rng.permutation(np.arange(1, 151)))]
    shapes = [(size // 3, 3) if size % 3 == 0 else (size,) for size in sizes]
    home = expected.parameters(*shapes)
    params = [torch.nn.Parameter(param.detach().to(place.device)) for param in home]
    truth = expected.Expected(home, HYPER)
    optimizer = SONew(params, backend=place.backend, tuning="off", **SETTINGS)
    past, coming = expected.gradients(home, band=1), expected.gradients(home, band=1, seed=1000)[: len(RATES)]
    for number, (row, rate) in enumerate(zip((*past, *coming), (*[0.0] * len(past), *RATES), strict=True)):
        optimizer.param_groups[0]["lr"] = rate
        truth.hypers = (replace(HYPER, lr=rate),) * len(home)
        grads = [None if number == MISSING and i % 7 == 0 else grad for i, grad in enumerate(row)]
        expected.take_step(optimizer, params, [None if grad is None else grad.to(place.device) for grad in grads])
        truth.step(grads)
    truth.check(optimizer, params)
    assert [plan.backend for plan in optimizer.plans()] == [place.backend]


@pytest.mark.parametrize(("band", "direction"), [(1, torch.float32), (4, torch.bfloat16)])
def test_bfloat16_state_takes_the_step_of_the_reference(place: Place, band: int, direction: torch.dtype) -> None:
    """From the same stored state, with the same noise: one step ahead, the reference on the same device."""
    data, twin = (Data(place, band=band) for _ in range(2))
    types: dict[str, Any] = {"state_dtype": torch.bfloat16, "direction_dtype": direction}
    ours = run(place, data, band=band, **types)
    theirs = SONew(twin.params, band=band, backend="reference", tuning="off", **SETTINGS, **types)
    theirs.param_groups[0]["lr"] = ours.param_groups[0]["lr"] = 0.25
    for param, other in zip(data.params, twin.params, strict=True):
        other.data.copy_(param.detach())
        theirs.state[other] = {name: held.clone() for name, held in ours.state[param].items()}
    before = joined(data.params)
    row = data.rows[1]
    for optimizer, params in ((ours, data.params), (theirs, twin.params)):
        expected.take_step(optimizer, params, row)
    rounded = "float32" if direction is torch.float32 else "bfloat16 store"
    assert_close(joined(data.params) - before, joined(twin.params) - before, rounded, context="what the step adds")
    for name, rows in ((MOMENTUM, 1), (STATS, band + 1)):
        got, want = (joined((opt.state[p][name] for p in d.params), rows) for opt, d in ((ours, data), (theirs, twin)))
        for k in range(rows):
            assert_close(got[k], want[k], "bfloat16 stochastic", context=f"{name}, row {k}")
    assert data.intact()


def test_band_16_follows_the_float64_reference(place: Place) -> None:
    data, truth = (Data(place, band=WIDEST) for _ in range(2))
    ours = run(place, data, band=WIDEST)
    theirs = run(place._replace(backend="reference"), truth, band=WIDEST, state_dtype=torch.float64)
    assert_close(joined(data.params), joined(truth.params), "float32", context="parameters")
    got, want = (joined((opt.state[p][STATS] for p in d.params), WIDEST + 1) for opt, d in ((ours, data), (theirs, truth)))
    for k in range(WIDEST + 1):
        assert_close(got[k], want[k], "float32 averages", context=f"stats, row {k}")
    assert {ours.state[param][COUNT].item() for param in data.params} == {len(data.rows)}
    assert data.intact()
