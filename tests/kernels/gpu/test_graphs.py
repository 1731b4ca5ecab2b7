"""Whole steps in CUDA graphs: replays give the bits of eager steps. On the CPU, which has no graphs, a replay is an eager step."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch

from sonew.torch import SONew
from sonew_autotune.measure import Work
from sonew_perf.steps.graphs import WARM_UP_STEPS, capture
from tests import expected
from tests.kernels.gpu.steps import SETTINGS, Data, Place, assert_same, bits

DECAYS = (0.1, 0.0, 0.25)  # another one every step


def recorded(place: Place, optimizer: SONew) -> Work:
    """The step as a graph, after `WARM_UP_STEPS` eager ones."""
    if place.device == "cuda":
        return capture(optimizer.step).work
    for _ in range(WARM_UP_STEPS):
        optimizer.step()
    return optimizer.step


def give(params: Sequence[torch.Tensor], row: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Gradients at addresses of their own, which a graph will read in every replay."""
    homes = [grad.clone() for grad in row]
    for param, home in zip(params, homes, strict=True):
        param.grad = home
    return homes


def replay(optimizer: SONew, graph: Work, homes: Sequence[torch.Tensor], row: Sequence[torch.Tensor], decay: float) -> None:
    """New gradients and a new weight decay, where the graph finds them."""
    for home, grad in zip(homes, row, strict=True):
        home.copy_(grad)
    optimizer.param_groups[0]["weight_decay"] = decay
    optimizer.push_settings()
    graph()


class Pair:
    """The same group twice: `eager` with a float for its lr, `graphed` with a tensor on the device."""

    def __init__(self, place: Place, *, band: int, dtype: torch.dtype = torch.float32, state: torch.dtype = torch.float32) -> None:
        self.plain, self.data = (Data(place, band=band, dtype=dtype) for _ in range(2))
        settings = SETTINGS | {"band": band, "state_dtype": state, "backend": place.backend, "tuning": "off"}
        self.lr = torch.tensor(0.0, device=place.device)
        self.eager = SONew(self.plain.params, lr=0.0, **settings)
        self.graphed = SONew(self.data.params, lr=self.lr, capturable=True, **settings)

    def eager_step(self, row: Sequence[torch.Tensor], rate: float, decay: float) -> None:
        self.eager.param_groups[0].update(lr=rate, weight_decay=decay)
        expected.take_step(self.eager, self.plain.params, row)

    def assert_equal(self) -> None:
        assert_same(bits(self.graphed, self.data.params), bits(self.eager, self.plain.params))
        assert self.data.intact()


@pytest.mark.parametrize(
    ("band", "dtype", "state"),
    [
        (0, torch.float32, torch.float32),
        (1, torch.float32, torch.float32),
        (4, torch.bfloat16, torch.float32),
        (1, torch.float32, torch.bfloat16),
    ],
)
def test_replays_give_the_bits_of_eager_steps(place: Place, band: int, dtype: torch.dtype, state: torch.dtype) -> None:
    """Gradients, lr and weight decay change in every step."""
    pair = Pair(place, band=band, dtype=dtype, state=state)
    first = pair.data.rows[0]
    homes = give(pair.data.params, first)
    graph = recorded(place, pair.graphed)
    for _ in range(WARM_UP_STEPS):
        pair.eager_step(first, 0.0, SETTINGS["weight_decay"])
    pair.assert_equal()
    before = [param.detach().clone() for param in pair.data.params]
    for row, rate, decay in zip(pair.data.rows, pair.data.rates, itertools.cycle(DECAYS), strict=False):
        pair.lr.fill_(rate)
        replay(pair.graphed, graph, homes, row, decay)
        pair.eager_step(row, rate, decay)
        pair.assert_equal()
    assert all(not torch.equal(param, old) for param, old in zip(pair.data.params, before, strict=True) if param.numel())


def test_each_capture_keeps_its_own_gradients(place: Place) -> None:
    """Two graphs of one optimizer, their gradients at different addresses, replayed in turn, with an eager step in between."""
    pair = Pair(place, band=2)
    first = pair.data.rows[0]
    graphs = []
    for _ in range(2):
        homes = give(pair.data.params, first)
        graphs.append((homes, recorded(place, pair.graphed)))
    for _ in range(2 * WARM_UP_STEPS):
        pair.eager_step(first, 0.0, SETTINGS["weight_decay"])
    for turn, (row, rate) in enumerate(zip(pair.data.rows, pair.data.rates, strict=True)):
        pair.lr.fill_(rate)
        homes, graph = graphs[turn % 2]
        if turn == 3:
            expected.take_step(pair.graphed, pair.data.params, row)
        else:
            if place.device == "cpu":  # an eager step reads what is bound, a graph what was bound when it was captured
                for param, home in zip(pair.data.params, homes, strict=True):
                    param.grad = home
            replay(pair.graphed, graph, homes, row, SETTINGS["weight_decay"])
        pair.eager_step(row, rate, SETTINGS["weight_decay"])
        pair.assert_equal()


def iteration(optimizer: SONew, params: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]) -> None:
    """Forward, backward and step; gradients are products, so their bits do not depend on a library's choice of algorithm."""
    optimizer.zero_grad(set_to_none=True)
    torch.stack([((param * given) ** 2).sum() for param, given in zip(params, inputs, strict=True)]).sum().backward()
    optimizer.step()


def test_forward_backward_and_step_in_one_graph(place: Place) -> None:
    """The gradients come from the graph's private memory, at addresses that no eager step has seen; eager iterations come in between."""
    shapes = [(600,), (37, 11), (), (1,), (2049,)]
    plain, params = (expected.parameters(*shapes) for _ in range(2))
    for group in (plain, params):
        for param in group:
            param.data = param.data.to(place.device)
    settings = SETTINGS | {"lr": 0.01, "band": 1, "backend": place.backend, "tuning": "off"}
    eager, graphed = SONew(plain, **settings), SONew(params, capturable=True, **settings)
    feeds = [[grad.to(place.device) for grad in row] for row in expected.gradients(expected.parameters(*shapes), band=1)]
    inputs = [given.clone() for given in feeds[0]]

    def feed(row: Sequence[torch.Tensor]) -> None:
        for given, value in zip(inputs, row, strict=True):
            given.copy_(value)

    graph = capture(lambda: iteration(graphed, params, inputs)).work if place.device == "cuda" else None
    for _ in range(WARM_UP_STEPS):
        iteration(eager, plain, inputs)
        if graph is None:
            iteration(graphed, params, inputs)
    for turn, row in enumerate(feeds[:6]):
        feed(row)
        if graph is None or turn == 3:
            iteration(graphed, params, inputs)
        else:
            graph()
        iteration(eager, plain, inputs)
        assert_same(bits(graphed, params), bits(eager, plain))
