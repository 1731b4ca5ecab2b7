"""Checkpoints, copies, and parameters that are exchanged under the optimizer's hands."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from sonew import InvalidConfigError
from sonew.config import Hyper
from sonew.torch import SONew
from tests.expected import Expected, gradients, parameters, take_step
from tests.tolerances import assert_close

every_backend = pytest.mark.parametrize("backend", ["reference", "cpu"])


def same_state(first: torch.optim.Optimizer, second: torch.optim.Optimizer, pairs: list[tuple[Any, Any]]) -> None:
    """Parameters and state agree bit for bit, and in type."""
    for one, other in pairs:
        assert torch.equal(one, other)
        assert sorted(first.state[one]) == sorted(second.state[other]) == ["count", "momentum", "stats"]
        for name, value in first.state[one].items():
            assert second.state[other][name].dtype == value.dtype, name
            assert torch.equal(second.state[other][name], value), name


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """What torch.save and the safe torch.load make of it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


@every_backend
@pytest.mark.parametrize("transport", [lambda state: state, through_a_file, copy.deepcopy])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_resuming_is_bitwise(backend: str, transport: Callable[[dict[str, Any]], dict[str, Any]], dtype: torch.dtype) -> None:
    """Also beside bfloat16 parameters, to which torch's own loader would cast the state."""
    first, second = parameters((6, 5), (7,), (), dtype=dtype), parameters((6, 5), (7,), (), dtype=dtype, seed=9)
    settings: dict[str, Any] = {"lr": 0.1, "band": 2, "weight_decay": 0.1, "backend": backend}
    one, other = SONew(first, **settings), SONew(second, lr=123.0, band=2, backend=backend)
    rows = gradients(first, band=2)
    for row in rows[:5]:
        take_step(one, first, row)
    take_step(other, second, rows[7])  # a plan of its own that loading must discard
    other.load_state_dict(transport(one.state_dict()))
    with torch.no_grad():
        for source, target in zip(first, second, strict=True):
            target.copy_(source)
    assert other.param_groups[0]["lr"] == 0.1
    for row in rows[5:8]:
        take_step(one, first, [grad.clone() for grad in row])
        take_step(other, second, [grad.clone() for grad in row])
        same_state(one, other, list(zip(first, second, strict=True)))
    assert one.state[first[0]]["stats"].dtype == torch.float32


def test_state_dict_says_what_layout_says() -> None:
    params = parameters((2, 3), (4,))
    optimizer = SONew(params, band=3)
    take_step(optimizer, params, [torch.ones(2, 3), None])
    state = optimizer.state_dict()["state"]
    assert list(state) == [0]
    assert {name: (tuple(value.shape), value.dtype) for name, value in state[0].items()} == {
        "momentum": ((2, 3), torch.float32),
        "stats": ((4, 2, 3), torch.float32),
        "count": ((), torch.int32),
    }


def test_loading_does_not_share_memory_with_the_checkpoint() -> None:
    first, second = parameters((5,)), parameters((5,))
    one, other = SONew(first), SONew(second)
    take_step(one, first, [torch.ones(5)])
    checkpoint = one.state_dict()
    other.load_state_dict(checkpoint)
    kept = copy.deepcopy(checkpoint)
    take_step(other, second, [torch.ones(5)])
    for name, value in kept["state"][0].items():
        assert torch.equal(checkpoint["state"][0][name], value), name


def test_load_hooks_of_users_still_see_the_state() -> None:
    first, second = parameters((5,)), parameters((5,))
    one, other = SONew(first), SONew(second)
    take_step(one, first, [torch.ones(5)])

    def double(_optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        changed = copy.deepcopy(state)
        changed["state"][0]["momentum"] *= 2
        return changed

    other.register_load_state_dict_pre_hook(double)
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.state[second[0]]["momentum"], 2 * one.state[first[0]]["momentum"])


@every_backend
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))])  # noqa: S301  # our own bytes
def test_copies_go_on_by_themselves(backend: str, copier: Callable[[SONew], SONew]) -> None:
    params = parameters((6,), (2, 2))
    optimizer = SONew(params, backend=backend, lr=0.1)
    rows = gradients(params, band=1)
    for row in rows[:3]:
        take_step(optimizer, params, row)
    twin = copier(optimizer)
    twin_params = twin.param_groups[0]["params"]
    same_state(optimizer, twin, list(zip(params, twin_params, strict=True)))
    before = [param.detach().clone() for param in params]
    take_step(twin, twin_params, [grad.clone() for grad in rows[3]])
    assert all(torch.equal(param, old) for param, old in zip(params, before, strict=True))
    take_step(optimizer, params, rows[3])
    same_state(optimizer, twin, list(zip(params, twin_params, strict=True)))


@every_backend
def test_a_parameter_replaced_with_its_state_is_stepped(backend: str) -> None:
    """Pruning and densification put another tensor in the group and hand it the state."""
    (old, new) = parameters((6,), (6,))
    optimizer, expected = SONew([old], backend=backend, lr=0.1), Expected([new], Hyper(lr=0.1))
    rows = gradients([old], band=1)
    for row in rows[:4]:
        take_step(optimizer, [old], row)
        expected.step(row)
    expected.params[0] = new.detach().numpy().copy()
    old.grad = None
    before = old.detach().clone()
    optimizer.param_groups[0]["params"][0] = new
    optimizer.state[new] = optimizer.state.pop(old)
    take_step(optimizer, [new], rows[4])
    assert torch.equal(old, before)
    expected.step(rows[4])
    assert optimizer.state[new]["count"].item() == 5
    assert_close(optimizer.state[new]["stats"], expected.stats[0], "float32 averages")


@every_backend
def test_state_tensors_replaced_by_hand_are_the_ones_used(backend: str) -> None:
    (param,) = parameters((6,))
    optimizer = SONew([param], backend=backend)
    take_step(optimizer, [param], [torch.ones(6)])
    optimizer.state[param]["momentum"] = torch.full((6,), 10.0)
    take_step(optimizer, [param], [torch.ones(6)])
    assert_close(optimizer.state[param]["momentum"], torch.full((6,), 9.1), "float32 averages")


@every_backend
def test_removed_groups_are_no_longer_stepped(backend: str) -> None:
    first, second = parameters((6,), (6,))
    optimizer = SONew([{"params": [first]}, {"params": [second]}], backend=backend)
    take_step(optimizer, [first, second], [torch.ones(6), torch.ones(6)])
    del optimizer.param_groups[0]
    before = first.detach().clone(), second.detach().clone()
    optimizer.step()
    assert torch.equal(first, before[0])
    assert not torch.equal(second, before[1])
    assert [plan.problem.total for plan in optimizer.plans()] == [6]


@every_backend
def test_cleared_state_starts_afresh(backend: str) -> None:
    params = parameters((6,))
    optimizer, expected = SONew(params, backend=backend, lr=0.0), Expected(params, Hyper(lr=0.0))
    take_step(optimizer, params, [torch.ones(6)])
    optimizer.state.clear()
    for row in gradients(params, band=1):
        take_step(optimizer, params, row)
        expected.step(row)
    expected.check(optimizer, params)


@every_backend
def test_moved_and_recast_parameters_are_followed(backend: str) -> None:
    """`param.data` in another place or another type: the next step works on it with the same state."""
    params = parameters((8, 4))
    optimizer, expected = SONew(params, backend=backend, lr=0.0), Expected(params, Hyper(lr=0.0))
    rows = gradients(params, band=1)
    for row in rows[:6]:
        take_step(optimizer, params, row)
        expected.step(row)
    moved = params[0].data.clone()
    params[0].data = moved
    take_step(optimizer, params, rows[6])
    params[0].grad = None
    params[0].data = moved.to(torch.bfloat16)
    expected.types[0] = torch.bfloat16
    optimizer.param_groups[0]["lr"] = 0.1
    expected.step(rows[6])
    expected.hypers = (Hyper(lr=0.1),)
    expected.params[0] = expected._array(params[0])
    row = [rows[7][0].to(torch.bfloat16)]
    take_step(optimizer, params, row)
    expected.step(row)
    expected.check(optimizer, params)
    assert [plan.problem.param_dtype for plan in optimizer.plans()] == ["bfloat16"]


@every_backend
@pytest.mark.parametrize("shape", [(9,), (3, 2), (2,), (2, 3, 1)])
def test_a_changed_shape_is_an_error_not_a_stray_write(backend: str, shape: tuple[int, ...]) -> None:
    (param,) = parameters((2, 3))
    optimizer = SONew([param], backend=backend)
    take_step(optimizer, [param], [torch.ones(2, 3)])
    param.grad = None
    param.data = torch.zeros(shape)
    param.grad = torch.ones(shape)
    with pytest.raises(InvalidConfigError, match=r"state of a parameter of shape .* fresh state"):
        optimizer.step()
    assert torch.equal(param, torch.zeros(shape))


def banded(grads: list[torch.Tensor], band: int) -> list[torch.Tensor]:
    """Rows 0..band of the statistics, float64 (6,) each, after gradients of six elements."""
    rows = torch.zeros(band + 1, 6, dtype=torch.float64)
    for grad in grads:
        for k in range(band + 1):
            products = torch.nn.functional.pad(grad[: 6 - k] * grad[k:], (0, k)).double()
            rows[k] = 0.99 * rows[k] + 0.01 * products
    return list(rows)


@every_backend
@pytest.mark.parametrize("how", ["load", "assign"])
@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (0, 2), (2, 0)])
def test_the_band_may_change(backend: str, how: str, before: int, after: int) -> None:
    """On load the optimizer's own band holds; rows beyond it are dropped, new ones start at zero; the other averages go on."""
    first, second = parameters((6,)), parameters((6,))
    rows = gradients(first, band=4)
    one, other = SONew(first, band=before, backend=backend), SONew(second, band=after, backend=backend)
    for row in rows[:5]:
        take_step(one, first, row)
    if how == "load":
        other.load_state_dict(one.state_dict())
        optimizer, params = other, second
    else:
        one.param_groups[0]["band"] = after
        optimizer, params = one, first
    take_step(optimizer, params, rows[5])
    assert optimizer.param_groups[0]["band"] == after
    stats = optimizer.state[params[0]]["stats"]
    seen = [row[0].detach() for row in rows[:6]]
    narrow, full = banded(seen, max(before, after)), banded(seen[5:], max(before, after))
    wanted = [narrow[k] if k <= before else full[k] for k in range(after + 1)]
    assert_close(stats, torch.stack(wanted), "float32 averages")
    assert optimizer.state[params[0]]["count"].item() == 6


@pytest.mark.parametrize("version", [0, 2, "1"])
def test_a_state_of_another_layout_is_refused(version: Any) -> None:
    first, second = parameters((6,)), parameters((6,))
    one, other = SONew(first), SONew(second)
    take_step(one, first, [torch.ones(6)])
    checkpoint = one.state_dict()
    assert [group["layout_version"] for group in checkpoint["param_groups"]] == [1]
    checkpoint["param_groups"][0]["layout_version"] = version
    with pytest.raises(InvalidConfigError, match=f"layout_version={version!r}.*Update sonew"):
        other.load_state_dict(checkpoint)
    assert not other.state


def spoil(name: str, change: Callable[[torch.Tensor], Any] | None) -> Callable[[dict[str, Any]], None]:
    """A change of one buffer of a state; None removes it."""

    def apply(state: dict[str, Any]) -> None:
        if change is None:
            del state[name]
        else:
            state[name] = change(state[name])

    return apply


@every_backend
@pytest.mark.parametrize(
    "change",
    [
        spoil("momentum", lambda x: x[:3]),
        spoil("momentum", lambda x: x.to(torch.bfloat16)),
        spoil("momentum", lambda x: x.double()),
        spoil("momentum", None),
        spoil("stats", lambda x: x[:, :3]),
        spoil("stats", lambda x: x[:0]),
        spoil("stats", lambda x: x.to(torch.float16)),
        spoil("stats", None),
        spoil("count", None),
        spoil("count", lambda x: x.float()),
        spoil("count", lambda x: x.reshape(1)),
        spoil("count", lambda _x: 3),
    ],
)
def test_a_state_of_the_wrong_make_is_refused(backend: str, change: Callable[[dict[str, Any]], None]) -> None:
    """A foreign or damaged checkpoint never becomes a stray write or a wrong reading of memory."""
    first, second = parameters((6,)), parameters((6,))
    one, other = SONew(first, backend=backend), SONew(second, backend=backend)
    take_step(one, first, [torch.ones(6)])
    checkpoint = copy.deepcopy(one.state_dict())
    change(checkpoint["state"][0])
    before = second[0].detach().clone()
    with pytest.raises(InvalidConfigError, match="state of a parameter of shape"):  # noqa: PT012  # either call may be the one to refuse
        other.load_state_dict(checkpoint)
        take_step(other, second, [torch.ones(6)])
    assert torch.equal(second[0], before)


def test_another_optimizers_checkpoint_is_refused() -> None:
    first, second = parameters((6,)), parameters((6,))
    adam, optimizer = torch.optim.Adam(first), SONew(second)
    take_step(adam, first, [torch.ones(6)])
    with pytest.raises((InvalidConfigError, KeyError), match=r"state of a parameter|band"):  # noqa: PT012  # as above
        optimizer.load_state_dict(adam.state_dict())
        take_step(optimizer, second, [torch.ones(6)])
