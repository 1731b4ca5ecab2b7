"""Whole steps on a GPU: like the float64 reference on the same device, and the same bits however they are launched.

Each test also runs on the compiled CPU backend, so that its logic is proven where there is no GPU.
"""

from __future__ import annotations

import itertools
from typing import Any, Final

import numpy as np
import pytest
import torch

from sonew.backends.table import Leaf
from sonew.config import GRAFTS, Hyper, LaunchConfig, Problem
from sonew.dispatch import load_step_group, make_plan, step
from sonew.layout import COUNT, MOMENTUM, STATS, state_layout
from sonew.torch import SONew
from sonew_kernels.spec import SPECS
from tests import expected
from tests.kernels.gpu.steps import SETTINGS, Data, Place, assert_same, bits, joined, run
from tests.tolerances import assert_close

BANDS: Final = (0, 1, 2, 4, 8)
STORE_ROWS: Final = {torch.float32: "float32", torch.bfloat16: "bfloat16 store", torch.float16: "float16 store"}
CHAINS: Final = ("tensor", 37)
PAIRS: Final = [
    pytest.param(band, dtype, CHAINS[i % len(CHAINS)], GRAFTS[i % len(GRAFTS)], id=f"band {band}, {dtype}")
    for i, (band, dtype) in enumerate((*itertools.product(BANDS, STORE_ROWS), (3, torch.float32), (6, torch.float32)))
]


@pytest.mark.parametrize(("band", "dtype", "chain", "graft"), PAIRS)
def test_steps_follow_the_float64_reference_of_the_same_device(place: Place, band: int, dtype: torch.dtype, chain: Any, graft: Any) -> None:
    """Every band with every type, chains and grafts in turn; another learning rate in every step."""
    data, truth = (Data(place, band=band, dtype=dtype) for _ in range(2))
    before = joined(data.params)
    settings = {"band": band, "chain": chain, "graft": graft}
    ours = run(place, data, **settings)
    theirs = run(place._replace(backend="reference"), truth, state_dtype=torch.float64, **settings)
    assert np.sqrt(np.mean((joined(truth.params) - before) ** 2)) > 0.1, "the parameters hardly move, so the test is blind"
    assert_close(joined(data.params), joined(truth.params), STORE_ROWS[dtype], context="parameters")
    for name, rows in ((MOMENTUM, 1), (STATS, band + 1)):
        pair = [joined((opt.state[p][name] for p in d.params), rows) for opt, d in ((ours, data), (theirs, truth))]
        for k, (got, want) in enumerate(zip(*pair, strict=True)):
            assert_close(got, want, "float32 averages", context=f"{name}, row {k}")
    assert {ours.state[param][COUNT].item() for param in data.params} == {len(data.rows)}
    assert {ours.state[param][COUNT].device.type for param in data.params} == {place.device}
    assert data.intact()


def test_a_new_learning_rate_counts_in_the_very_next_step(place: Place) -> None:
    """From parameters 0 and the same state: a step of 0 leaves every bit, twice the rate goes twice as far, to the bit."""
    data = Data(place, band=1)
    optimizer = run(place, data, band=1, weight_decay=0.0)
    state = [(held, held.clone()) for param in data.params for held in optimizer.state[param].values()]
    ends = {}
    for rate in (0.0, 0.25, 0.5):
        for held, kept in state:
            held.copy_(kept)
        for param in data.params:
            param.detach().zero_()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        ends[rate] = joined(data.params)
    assert not ends[0.0].any()
    assert ends[0.25].any()
    assert np.array_equal(ends[0.5], 2 * ends[0.25])


def test_gradients_may_lie_elsewhere_in_every_step(place: Place) -> None:
    """Memory that `zero_grad` gave up and backward took anew, and a tensor that sits one step out: the bits of gradients that stay."""
    data, staying = (Data(place, band=2) for _ in range(2))
    out = (len(data.rows) - 2, 5)  # this step's, this tensor's gradient is missing
    moving, still = (SONew(d.params, band=2, backend=place.backend, tuning="off", **SETTINGS) for d in (data, staying))
    homes = [grad.clone() for grad in staying.rows[0]]
    seen: list[set[int]] = [set() for _ in homes]
    kept_alive = []
    for k, row in enumerate(data.rows):
        grads = [None if (k, i) == out else grad for i, grad in enumerate(row)]
        moving.zero_grad(set_to_none=True)
        torch.stack([(param * grad).sum() for param, grad in zip(data.params, grads, strict=True) if grad is not None]).sum().backward()
        kept_alive.append([param.grad for param in data.params])
        for known, param in zip(seen, data.params, strict=True):
            known.add(0 if param.grad is None else param.grad.data_ptr())
        for home, grad in zip(homes, row, strict=True):
            home.copy_(grad)
        for optimizer in (moving, still):
            optimizer.param_groups[0]["lr"] = data.rates[k]
        moving.step()
        expected.take_step(still, staying.params, [None if grad is None else home for grad, home in zip(grads, homes, strict=True)])
    assert all(len(known) == len(data.rows) for known, param in zip(seen, data.params, strict=True) if param.numel()), "nothing moved"
    assert [moving.state[param][COUNT].item() for param in data.params] == [len(data.rows) - (i == out[1]) for i in range(len(homes))]
    assert_same(bits(moving, data.params), bits(still, staying.params))


@pytest.mark.parametrize(("band", "dtype"), [(1, torch.float32), (4, torch.bfloat16)])
def test_two_runs_give_the_same_bits(place: Place, band: int, dtype: torch.dtype) -> None:
    data, again = (Data(place, band=band, dtype=dtype) for _ in range(2))
    assert_same(bits(run(place, data, band=band), data.params), bits(run(place, again, band=band), again.params))


def configurations(backend: str, band: int, count: int = 6) -> list[dict[str, int]]:
    """Points spread evenly over what the kernel family allows."""
    spec = SPECS[backend]
    names = [tunable.name for tunable in spec.tunables]
    points = [dict(zip(names, values, strict=True)) for values in itertools.product(*(tunable.values for tunable in spec.tunables))]
    allowed = [point for point in points if spec.rejects(point, band) is None]
    return [spec.default(band), *allowed[:: len(allowed) // count]]


def stepped(place: Place, config: dict[str, int], band: int) -> list[torch.Tensor]:
    """State and parameters as bytes after every row, launched by an explicit configuration; ungrafted, as norms may differ."""
    data, hyper = Data(place, band=band), Hyper(lr=0.1, band=band, eps_rel=1e-3, graft="none")
    leaves = []
    for param in data.params:
        layout = state_layout(tuple(param.shape), band)
        state = {name: torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype), device=place.device) for name, spec in layout.items()}
        leaves.append(Leaf(param.detach(), state[MOMENTUM], state[STATS], state[COUNT], max(1, param.numel())))
    lengths = sorted(param.numel() for param in data.params)
    problem = Problem(device=place.device, band=band, total=sum(lengths), median=lengths[len(lengths) // 2])
    plan = make_plan(problem, backend=place.backend, config=LaunchConfig.of(place.backend, config))
    group = load_step_group(plan)(leaves, plan)
    group.set_hyper(hyper)
    for row in data.rows:
        group.bind(row)
        step(group)
    tensors = [tensor for leaf in leaves for tensor in (leaf.param, leaf.momentum, leaf.stats, leaf.count)]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
    assert data.intact()
    return [tensor.reshape(-1).view(torch.uint8) for tensor in tensors]


@pytest.mark.parametrize("band", [1, 4])
def test_bits_depend_on_no_configuration(place: Place, band: int) -> None:
    """State and, through the parameters, the direction."""
    first, *others = (stepped(place, config, band) for config in configurations(place.backend, band))
    for other in others:
        assert_same(first, other)
