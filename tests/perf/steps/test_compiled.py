from __future__ import annotations

import pytest
import torch

from sonew.config import Hyper
from sonew.layout import MOMENTUM, STATS
from sonew_perf.steps.compiled import CompiledSonew, step_tensors
from tests import expected
from tests.tolerances import assert_close

SHAPES = ((40,), (7, 9), (1,), (2, 3, 4))


@pytest.mark.parametrize("band", [0, 1, 4])
def test_the_compiled_form_is_the_reference(band: int) -> None:
    """Uncompiled, in float64, tensor by tensor; sizes below the band are among them."""
    hyper = Hyper(lr=0.1, band=band, eps_rel=1e-3, weight_decay=0.1)
    params = expected.parameters(*SHAPES, dtype=torch.float64)
    truth = expected.Expected(params, hyper, dtype=float)
    momenta = [torch.full_like(param, 0.0) for param in params]
    stats = [torch.zeros((band + 1, *param.shape), dtype=torch.float64) for param in params]
    count = torch.zeros((), dtype=torch.float64)
    for row in expected.gradients(params, band=band):
        truth.step(row)
        with torch.no_grad():
            step_tensors(params, row, momenta, stats, count, hyper=hyper)
    for i in range(len(params)):
        assert_close(params[i], truth.params[i], "float64", context=f"parameter {i}")
        assert_close(momenta[i], truth.momentum[i], "float64", context=f"momentum {i}")
        assert_close(stats[i], truth.stats[i], "float64", context=f"stats {i}")
    assert count.item() == len(expected.gradients(params, band=band))


def test_the_optimizer_traces_it_whole_and_keeps_its_state_between_steps() -> None:
    params = expected.parameters(*SHAPES)
    hyper = Hyper(lr=0.1, band=1)
    truth = expected.Expected(params, hyper)
    rows = expected.gradients(params, band=1)
    for param, grad in zip(params, rows[0], strict=True):
        param.grad = grad.clone()
    optimizer = CompiledSonew(params, lr=0.1, band=1, compiler="eager")
    for row in rows:
        for param, grad in zip(params, row, strict=True):
            assert param.grad is not None
            param.grad.copy_(grad)
        optimizer.step()
        truth.step(row)
    for i, param in enumerate(params):
        assert_close(optimizer.state[param][MOMENTUM], truth.momentum[i], "float32 averages", context=f"momentum {i}")
        assert_close(optimizer.state[param][STATS], truth.stats[i], "float32 averages", context=f"stats {i}")
