"""bfloat16 state through the optimizer: memory, seeds, resuming to the bit, parameters that small steps still move."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sonew import InvalidConfigError
from sonew.rounding import tensor_seed
from sonew.torch import SONew
from tests.expected import gradients, parameters, take_step
from tests.tolerances import assert_close, errors

SHAPES = ((6, 5), (7,), (), (40, 30))
BF16 = torch.bfloat16
every_backend = pytest.mark.parametrize("backend", ["reference", "cpu"])


def train(backend: str, *, steps: int = 12, split: int | None = None, **settings: Any) -> tuple[SONew, list[torch.nn.Parameter]]:
    """Some steps from fixed parameters and gradients; with `split` the optimizer is saved and another one loaded after so many."""
    dtype = settings.pop("dtype", torch.float32)
    params = parameters(*SHAPES, dtype=dtype)
    chosen: dict[str, Any] = {"lr": 0.05, "band": 2, "eps_rel": 1e-3, "backend": backend, "tuning": "off"} | settings
    optimizer = SONew(params, **chosen)
    rows = gradients(params, band=2)
    for step in range(steps):
        if step == split:
            saved = optimizer.state_dict()
            optimizer = SONew(params, band=2, backend=backend, tuning="off")
            optimizer.load_state_dict(saved)
        take_step(optimizer, params, rows[step % len(rows)])
    return optimizer, params


def everything(optimizer: SONew, params: list[torch.nn.Parameter]) -> list[torch.Tensor]:
    return [tensor.detach() for param in params for tensor in (param, *optimizer.state[param].values())]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> list[bool]:
    return [a.dtype is b.dtype and torch.equal(a, b) for a, b in zip(one, other, strict=True)]


@every_backend
def test_state_is_half_as_large_and_close_to_float32(backend: str) -> None:
    """Averages within the noise of their last place; the step after a history goes where the one with float32 state goes."""
    wide, narrow = train(backend, lr=0.0), train(backend, lr=0.0, state_dtype=BF16, direction_dtype=BF16)
    for optimizer, _ in (wide, narrow):
        optimizer.param_groups[0]["lr"] = 0.05
        optimizer.step()
    for a, b in zip(wide[1], narrow[1], strict=True):
        held = narrow[0].state[b]
        assert held["momentum"].dtype is held["stats"].dtype is BF16
        assert held["stats"].untyped_storage().nbytes() * 2 == wide[0].state[a]["stats"].untyped_storage().nbytes()
        for name in ("momentum", "stats"):
            assert_close(held[name], wide[0].state[a][name], "bfloat16 averages", context=name)
    start = torch.cat([param.detach().reshape(-1) for param in parameters(*SHAPES)])
    paths = [torch.cat([param.detach().reshape(-1) for param in params]) - start for _, params in (wide, narrow)]
    assert errors(paths[1], paths[0])[2] > 0.99


@every_backend
def test_equal_seeds_give_equal_bits_and_others_do_not(backend: str) -> None:
    settings: dict[str, Any] = {"state_dtype": BF16, "dtype": BF16, "stochastic_rounding": True}
    first = everything(*train(backend, seed=5, **settings))
    assert all(same(first, everything(*train(backend, seed=5, **settings))))
    other = same(first, everything(*train(backend, seed=6, **settings)))
    assert not all(other[0:3]), "the seed does not reach the first tensor"
    assert other[3], "counts have no seed"


@every_backend
def test_equal_tensors_draw_noises_of_their_own(backend: str) -> None:
    """Two tensors with the same values and gradients end with different bits: the noise knows the tensor."""
    params = [torch.nn.Parameter(torch.ones(500)) for _ in range(2)]
    optimizer = SONew(params, state_dtype=BF16, backend=backend, tuning="off")
    grad = torch.randn(500, generator=torch.Generator().manual_seed(1))
    take_step(optimizer, params, [grad, grad.clone()])
    stats = [optimizer.state[param]["stats"] for param in params]
    assert 0.1 < (stats[0] != stats[1]).float().mean() < 0.9


@every_backend
def test_resuming_gives_the_bits_of_going_on(backend: str) -> None:
    """The seed and the counts travel in the state dict."""
    settings: dict[str, Any] = {"state_dtype": BF16, "direction_dtype": BF16, "dtype": BF16, "stochastic_rounding": True, "seed": 2**40 + 3}
    straight = train(backend, **settings)
    resumed = train(backend, split=6, **settings)
    assert resumed[0].param_groups[0]["seed"] == 2**40 + 3
    assert all(same(everything(*straight), everything(*resumed)))


@every_backend
@pytest.mark.parametrize("stochastic", [True, False])
def test_steps_below_the_last_place_move_a_bfloat16_parameter_only_stochastically(backend: str, *, stochastic: bool) -> None:
    """200 steps of 1e-4 from 1.0, whose last place is 2^-7 below and above: the mean arrives, or nothing ever moves."""
    param = torch.nn.Parameter(torch.ones(4096, dtype=BF16))
    optimizer = SONew([param], lr=1e-4, band=0, backend=backend, tuning="off", stochastic_rounding=stochastic)
    grad = torch.ones(4096, dtype=BF16)
    for _ in range(200):
        take_step(optimizer, [param], [grad])
    moved = 1 - param.detach().double()
    if stochastic:
        assert abs(float(moved.mean()) - 0.02) < 4 * float(moved.std()) / 64
    else:
        assert not moved.any()


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"direction_dtype": torch.float16}, "direction_dtype='float16' is not one of"),
        ({"stochastic_rounding": 1}, "stochastic_rounding=1 is not allowed"),
        ({"seed": -1}, "seed=-1 is not allowed"),
        ({"seed": 2**64}, r"must be an integer in \[0, 2\^64\)"),
        ({"seed": 1.0}, "seed=1.0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], part: str) -> None:
    with pytest.raises(InvalidConfigError, match=part):
        SONew(parameters((3,)), **settings)


@pytest.mark.parametrize(
    ("state", "beta2", "band", "want"),
    [
        ("float32", 0.99, 1, 0.0),
        (BF16, 0.99, 1, 0.027691),
        (BF16, 0.999, 1, 0.087371),
        (BF16, 0.99, 4, 0.0069228),
        (BF16, 0.99, 0, 0.027691),
    ],
)
def test_pivots_below_the_noise_of_bfloat16_averages_fall_back_by_default(state: Any, beta2: float, band: int, want: float) -> None:
    """2^-8 / sqrt(1 - beta2^2), divided by the band; an explicit gamma, 0 too, is kept, and a group may have its own."""
    groups: list[dict[str, Any]] = [{"params": parameters((3,))}, {"params": parameters((4,)), "gamma": 0.0}]
    optimizer = SONew(groups, betas=(0.9, beta2), band=band, state_dtype=state)
    assert [group["gamma"] for group in optimizer.param_groups] == [pytest.approx(want, rel=1e-4), 0.0]


def test_float64_state_beside_stochastic_parameters() -> None:
    """Reference work rounds its float64 steps as float32: the values are bfloat16's, on both sides of the exact ones."""
    optimizer, params = train("reference", state_dtype=torch.float64, dtype=BF16, stochastic_rounding=True)
    assert optimizer.state[params[0]]["stats"].dtype is torch.float64
    assert all(bool(torch.isfinite(param).all()) for param in params)


def test_a_group_that_grows_moves_the_seeds_of_those_behind_it() -> None:
    """Seeds follow positions at once, as they will after a save and a load."""
    first, second, late = (parameters((50,), seed=seed)[0] for seed in range(3))
    optimizer = SONew([{"params": [first]}, {"params": [second]}], state_dtype=BF16, backend="reference", tuning="off")
    take_step(optimizer, [first, second], [torch.ones(50), torch.ones(50)])
    optimizer.param_groups[0]["params"].append(late)
    take_step(optimizer, [first, second, late], [torch.ones(50)] * 3)
    seeds = {leaf.param: leaf.seed for launch in optimizer._launches.all() for leaf in (member.leaf for member in launch.members)}
    assert seeds == {param: tensor_seed(0, position) for position, param in enumerate([first, late, second])}


def test_loading_leaves_capturable_alone() -> None:
    one, other = SONew(parameters((3,)), backend="reference"), SONew(parameters((3,)), capturable=True)
    other.load_state_dict(one.state_dict())
    assert other.param_groups[0]["capturable"] is True
