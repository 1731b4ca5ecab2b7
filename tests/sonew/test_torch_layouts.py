"""Parameters as they come: rates of zero, odd numbers, every memory layout, views, tied, moved, recast, stepped during backward."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
import torch

from sonew import UnsupportedProblemError
from sonew.config import GRAFTS, Hyper
from sonew.torch import SONew
from tests.expected import Expected, gradients, parameters, take_step
from tests.sonew.torch_bits import as_bits, assert_same, bits, every_backend
from tests.tolerances import assert_close

ODD_BITS: Final = {  # -0, smallest, -inf, quiet and signalling NaNs with payloads, largest
    torch.float32: (-(2**31), 1, -0x800000, 0x7FC01234, 0x7F800001, -0x3FFEDC, 0x7F7FFFFF),
    torch.bfloat16: (-(2**15), 1, -0x80, 0x7FC1, 0x7F81, -0x33, 0x7F7F),
    torch.float16: (-(2**15), 1, -0x400, 0x7E01, 0x7C01, -0x133, 0x7BFF),
}


def odd(dtype: torch.dtype) -> torch.nn.Parameter:
    """A parameter of every odd number beside ordinary ones, 300 elements."""
    integers = torch.int32 if dtype is torch.float32 else torch.int16
    strange = torch.tensor(ODD_BITS[dtype], dtype=integers).view(dtype)
    return torch.nn.Parameter(torch.cat([strange, torch.randn(293, generator=torch.Generator().manual_seed(1)).to(dtype)]))


@every_backend
@pytest.mark.parametrize(("dtype", "settings"), [
    (torch.float32, {"weight_decay": 0.5}),
    (torch.float32, {"weight_decay": 0.5, "lr": torch.tensor(0.0), "graft": "none"}),
    (torch.bfloat16, {"weight_decay": 0.5}),
    (torch.bfloat16, {"stochastic_rounding": True, "lr": -0.0}),
    (torch.float16, {"maximize": True}),
])  # fmt: skip
def test_a_rate_of_zero_changes_no_bit(backend: str, dtype: torch.dtype, settings: dict[str, Any]) -> None:
    """Of no parameter: NaNs keep their payload, signs of zero stay, and a direction that is not finite does not show."""
    params = [odd(dtype), parameters((5, 7), dtype=dtype)[0]]
    before = [as_bits(param) for param in params]
    chosen: dict[str, Any] = {"lr": 0.0, "backend": backend} | settings
    optimizer = SONew(params, **chosen)
    rows = gradients(params, band=1)[:3]
    rows[2][1][0, 0] = float("inf")
    for row in rows:
        take_step(optimizer, params, row)
    assert all(torch.equal(as_bits(param), old) for param, old in zip(params, before, strict=True))
    assert [optimizer.state[param]["count"].item() for param in params] == [3, 3]
    assert optimizer.state[params[0]]["momentum"].any(), "the averages move"


@every_backend
@pytest.mark.parametrize("graft", GRAFTS)
def test_a_zero_gradient_without_decay_changes_no_bit(backend: str, graft: Any) -> None:
    """From a fresh state: there is nothing to follow; -0 stays -0."""
    params = [torch.nn.Parameter(torch.tensor([-0.0, 0.0, 1.5, 1e-45]))]
    before = as_bits(params[0])
    optimizer = SONew(params, graft=graft, backend=backend)
    for _ in range(2):
        take_step(optimizer, params, [torch.zeros(4)])
    assert torch.equal(as_bits(params[0]), before)
    assert optimizer.state[params[0]]["count"].item() == 2


def views() -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """The same values in another memory, for tensors of shape (2, 3, 4, 5, 6)."""

    def inside(x: torch.Tensor) -> torch.Tensor:
        home = torch.full((x.numel() + 8,), 77.0)
        home[3:-5] = x.reshape(-1)
        return home[3:-5].view(x.shape)  # between other numbers, at an odd offset

    return {
        "channels_last_3d": lambda x: x.to(memory_format=torch.channels_last_3d),
        "inside a buffer": inside,
        "reversed axes": lambda x: x.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0),
        "every other": lambda x: torch.stack([x, x + 1], dim=-1).reshape(2, 3, 4, 5, 12)[..., ::2],
        "negated": lambda x: torch._neg_view(-x),
    }


@every_backend
@pytest.mark.parametrize("of", ["parameter", "gradient", "both"])
@pytest.mark.parametrize("view", views().values(), ids=views())
def test_views_step_like_contiguous_tensors(backend: str, view: Callable[[torch.Tensor], torch.Tensor], of: str) -> None:
    """Bit for bit; what lies around and between their elements stays."""
    shape = (2, 3, 4, 5, 6)
    plain = parameters(shape)
    shown = [view(plain[0].detach().clone()) if of != "gradient" else plain[0].detach().clone()]
    storage = torch.empty(0).set_(shown[0].untyped_storage())
    around = storage.clone()
    settings: dict[str, Any] = {"lr": 0.1, "chain": 7, "band": 2, "backend": backend}
    optimizers = [SONew(params, **settings) for params in (plain, shown)]
    for row in gradients(plain, band=2)[:3]:
        take_step(optimizers[0], plain, [row[0].clone()])
        take_step(optimizers[1], shown, [view(row[0]) if of != "parameter" else row[0].clone()])
        assert_same(bits(optimizers[0], plain), bits(optimizers[1], shown))
    own = torch.zeros(storage.shape, dtype=torch.bool).as_strided(shape, shown[0].stride(), shown[0].storage_offset()).fill_(True)
    mask = torch.empty(0, dtype=torch.bool).set_(own.untyped_storage())
    assert torch.equal(storage[~mask], around[~mask])


@every_backend
def test_a_parameter_that_overlaps_itself_is_refused(backend: str) -> None:
    """As by torch, which cannot write it in place either."""
    param = torch.zeros(4, 1).expand(4, 3).requires_grad_(True)
    optimizer = SONew([param], backend=backend)
    param.grad = torch.ones(4, 3)
    with pytest.raises(RuntimeError, match="single memory location"):
        optimizer.step()
    assert not param.any()


@every_backend
def test_empty_tensors_alone_count_their_steps(backend: str) -> None:
    params = parameters((0,), (3, 0), (0, 5))
    optimizer = SONew(params, backend=backend, band=2, weight_decay=0.1)
    for _ in range(2):
        take_step(optimizer, params, [torch.zeros_like(param) for param in params])
    assert [optimizer.state[param]["count"].item() for param in params] == [2, 2, 2]
    assert [tuple(optimizer.state[param]["stats"].shape) for param in params] == [(3, 0), (3, 3, 0), (3, 0, 5)]


@every_backend
def test_a_gradient_of_another_type(backend: str) -> None:
    """torch lets a bfloat16 parameter have a float32 gradient, which is then not rounded."""
    params = parameters((6, 5), dtype=torch.bfloat16)
    params[0].grad_dtype = torch.float32
    optimizer, expected = SONew(params, lr=0.1, eps=1e-2, backend=backend), Expected(params, Hyper(lr=0.1, eps=1e-2))
    for row in gradients(parameters((6, 5)), band=1)[:4]:
        take_step(optimizer, params, row)
        expected.step(row)
    expected.check(optimizer, params)
    assert [plan.problem.grad_dtype for plan in optimizer.plans()] == ["float32"]


@every_backend
def test_gradients_with_a_history_of_their_own(backend: str) -> None:
    """As `create_graph=True` leaves them: they are read, and `zero_grad` lets go of the graph."""
    params, twins = parameters((6,)), parameters((6,))
    optimizer, plain = SONew(params, backend=backend), SONew(twins, backend=backend)
    params[0].grad = torch.autograd.grad((params[0] ** 3).sum(), params[0], create_graph=True)[0]
    assert params[0].grad.requires_grad
    take_step(plain, twins, [params[0].grad.detach().clone()])
    optimizer.step()
    assert_same(bits(optimizer, params), bits(plain, twins))
    optimizer.zero_grad(set_to_none=False)
    assert not params[0].grad.requires_grad


class Tied(torch.nn.Module):
    """An embedding whose weight is the output layer's too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(7, 4)
        self.head = torch.nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.embedding(tokens))
        return logits


@every_backend
def test_tied_parameters_are_one(backend: str) -> None:
    """Stepped once, along the sum of their gradients."""
    model = Tied()
    weight = model.embedding.weight
    optimizer, expected = SONew(model.parameters(), lr=0.1, eps=1e-2, backend=backend), Expected([weight], Hyper(lr=0.1, eps=1e-2))
    for seed in range(3):
        optimizer.zero_grad()
        tokens = torch.randint(7, (9,), generator=torch.Generator().manual_seed(seed))
        torch.nn.functional.cross_entropy(model(tokens), tokens.roll(1)).backward()
        assert weight.grad is not None
        expected.step([weight.grad])
        optimizer.step()
    expected.check(optimizer, [weight])
    assert list(optimizer.state) == [weight]


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate parameters:UserWarning")
def test_a_tensor_twice_in_a_group_is_refused() -> None:
    """torch warns that this will be an error; here it is one, because one launch would step the tensor twice at the same time."""
    param = parameters((300,))[0]
    with pytest.raises(ValueError, match="some parameters appear more than once in a parameter group"):
        SONew([param, param])


@every_backend
@pytest.mark.parametrize(("before", "after"), [
    (torch.float32, torch.bfloat16), (torch.float32, torch.float16), (torch.bfloat16, torch.float32), (torch.float32, torch.float64),
])  # fmt: skip
@pytest.mark.parametrize("steps", [0, 5])
def test_a_model_is_recast_under_the_optimizer(backend: str, before: torch.dtype, after: torch.dtype, steps: int) -> None:
    """`model.to(dtype)` before the first step or between steps: the same float32 state goes on beside the new type."""
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 3)).to(before)
    params = list(model.parameters())
    hyper = Hyper(lr=0.05, eps=1e-2)
    optimizer = SONew(params, lr=0.05, eps=1e-2, backend="reference" if after is torch.float64 else backend)
    expected = Expected(params, hyper)
    rows = gradients(params, band=1)
    for row in rows[:steps]:
        take_step(optimizer, params, row)
        expected.step(row)
    model.to(after)
    expected.types = [after] * len(params)
    expected.params = [expected._array(param) for param in params]
    for row in rows[steps : steps + 3]:
        cast = [grad.to(after) for grad in row]
        take_step(optimizer, params, cast)
        expected.step(cast)
    expected.check(optimizer, params)
    assert {state["stats"].dtype for state in optimizer.state.values()} == {torch.float32}


@every_backend
def test_one_optimizer_per_parameter_steps_during_backward(backend: str) -> None:
    """Hooks that step and free each gradient as it arrives: the steps of one optimizer over all of them."""
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    twin = copy.deepcopy(model)
    settings: dict[str, Any] = {"lr": 0.05, "eps": 1e-2, "backend": backend}
    each: dict[torch.Tensor, SONew] = {param: SONew([param], **settings) for param in model.parameters()}
    joint = SONew(twin.parameters(), **settings)

    def step(param: torch.Tensor) -> None:
        each[param].step()
        each[param].zero_grad()

    for param in each:
        param.register_post_accumulate_grad_hook(step)
    for seed in range(4):
        inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(seed))
        model(inputs).square().mean().backward()
        joint.zero_grad()
        twin(inputs).square().mean().backward()
        joint.step()
        assert all(param.grad is None for param in each)
    for param, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert_close(param, other, "float32")
        assert each[param].state[param]["count"].item() == 4


@every_backend
def test_a_bad_gradient_in_a_later_group_stops_the_step_before_it_starts(backend: str) -> None:
    """Nothing of the groups before it has moved, and without it they go on."""
    (first,) = parameters((6,))
    embedding = torch.nn.Embedding(5, 3, sparse=True)
    groups: list[dict[str, Any]] = [{"params": [first]}, {"params": embedding.parameters()}]
    optimizer = SONew(groups, backend=backend)
    take_step(optimizer, [first], [torch.ones(6)])
    embedding(torch.tensor([1])).sum().backward()
    before = bits(optimizer, [first])
    with pytest.raises(UnsupportedProblemError, match="does not support sparse gradients"):
        optimizer.step()
    assert_same(bits(optimizer, [first]), before)
    embedding.weight.grad = None
    optimizer.step()
    assert optimizer.state[first]["count"].item() == 2


@every_backend
def test_a_subset_is_stepped(backend: str) -> None:
    """Frozen for a while and thawed: the others' steps are those without it, its own go on where they stopped."""
    params = parameters((6, 5), (7,))
    hyper = Hyper(lr=0.1, eps=1e-2)
    optimizer, expected = SONew(params, lr=0.1, eps=1e-2, backend=backend), Expected(params, replace(hyper))
    for count, row in enumerate(gradients(params, band=1)[:6]):
        params[1].requires_grad_(count not in (2, 3))
        optimizer.zero_grad()
        torch.stack([(param * grad).sum() for param, grad in zip(params, row, strict=True)]).sum().backward()
        optimizer.step()
        expected.step([row[0], row[1] if params[1].requires_grad else None])
    expected.check(optimizer, params)
    assert expected.counts == [6, 4]
