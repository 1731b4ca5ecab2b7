"""`SONew` in the place of a torch optimizer: arguments, groups, hooks, closures, copies, and torch's own words where torch refuses."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from sonew import InvalidConfigError
from sonew.config import Hyper
from sonew.torch import SONew
from tests.expected import Expected, gradients, parameters, take_step
from tests.sonew.torch_bits import assert_same, bits, every_backend
from tests.tolerances import assert_close


def test_every_option_is_a_setting_of_each_group() -> None:
    """In the defaults, in the groups, in the documentation, and in `repr`, which names no tensor."""
    options = set(inspect.signature(SONew.__init__).parameters) - {"self", "params"}
    assert [
        name for name in options if not re.search(rf"^        ([a-z_, ]+, )?{name}(, [a-z_, ]+)?: ", SONew.__doc__ or "", re.MULTILINE)
    ] == []
    optimizer = SONew([{"params": parameters((3,)), "lr": 0.25}, {"params": parameters((4,)), "band": 2, "maximize": True}])
    assert options <= set(optimizer.defaults)
    shown = repr(optimizer)
    assert shown.startswith("SONew (\nParameter Group 0\n")
    first, second = shown.split("Parameter Group 1\n")
    for group, text in zip(optimizer.param_groups, (first, second), strict=True):
        assert options <= set(group)
        assert [name for name in options if f"    {name}: {group[name]}\n" not in text] == []
    assert ("lr: 0.25\n" in first, "band: 2\n" in second, "maximize: True\n" in second) == (True, True, True)
    assert "Parameter containing" not in shown


@pytest.mark.parametrize(("option", "taken", "refused", "fix"), [
    ("foreach", (None, False), True, "foreach=None"),
    ("fused", (None, True, False), "yes", "fused=None"),
    ("differentiable", (False,), True, "differentiable=False"),
])  # fmt: skip
def test_foreach_fused_and_differentiable(option: str, taken: tuple[Any, ...], refused: Any, fix: str) -> None:
    """What asks for the step as it is, is accepted and changes nothing; the rest is refused, for one group too."""
    plain = parameters((6, 5))
    plainly = SONew(plain, backend="cpu", lr=0.1)
    grad = torch.randn(6, 5)
    take_step(plainly, plain, [grad])
    for value in taken:
        params = parameters((6, 5))
        optimizer = SONew(params, backend="cpu", lr=0.1, **{option: value})
        take_step(optimizer, params, [grad])
        assert_same(bits(optimizer, params), bits(plainly, plain))
    wrong: dict[str, Any] = {option: refused}
    with pytest.raises(ValueError, match=option) as caught:
        SONew(parameters((3,)), **wrong)
    assert f"{option}={refused!r}" in str(caught.value)
    assert fix in str(caught.value)
    for value in taken:
        assert repr(value) in str(caught.value)
    with pytest.raises(ValueError, match=f"{option}={refused!r}"):
        plainly.add_param_group({"params": parameters((3,)), option: refused})
    assert len(plainly.param_groups) == 1


@pytest.mark.parametrize("option", ["maximize", "decoupled_weight_decay", "skip_nonfinite", "counters", "foreach", "fused"])
def test_flags_are_true_or_false(option: str) -> None:
    wrong: dict[str, Any] = {option: "yes"}
    with pytest.raises(InvalidConfigError, match=f"{option}='yes'"):
        SONew(parameters((3,)), **wrong)


@every_backend
@pytest.mark.parametrize("decoupled", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_maximizing_is_minimizing_along_negated_gradients(backend: str, decoupled: bool, dtype: torch.dtype) -> None:
    """Bit for bit, stochastic state included; the other group goes on as ever."""
    settings: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.1, "decoupled_weight_decay": decoupled, "backend": backend, "tuning": "off"}
    settings["state_dtype"] = dtype
    up, down = (parameters((6, 5), (7,), dtype=dtype) for _ in range(2))
    groups: list[dict[str, Any]] = [{"params": up[0], "maximize": True}, {"params": up[1]}]
    climbing = SONew(groups, **settings)
    falling = SONew([{"params": down[0]}, {"params": down[1]}], **settings)
    rows = gradients(up, band=1)[:4]
    for row in rows:
        take_step(climbing, up, row)
        take_step(falling, down, [-row[0], row[1]])
        assert_same(bits(climbing, up), bits(falling, down))
    climbing.param_groups[0]["maximize"] = False  # it counts from the next step on
    take_step(climbing, up, rows[0])
    take_step(falling, down, rows[0])
    assert_same(bits(climbing, up), bits(falling, down))


@every_backend
@pytest.mark.parametrize("maximize", [False, True])
def test_coupled_decay_joins_the_gradient(backend: str, maximize: bool) -> None:
    """As in `torch.optim.Adam`: weight_decay p is added after the sign of `maximize`, so it always shrinks."""
    params, twins = parameters((6, 5), (), (0,), (9,)), parameters((6, 5), (), (0,), (9,))
    common: dict[str, Any] = {"lr": 0.1, "backend": backend, "eps": 1e-2}
    coupled = SONew(params, weight_decay=0.3, decoupled_weight_decay=False, maximize=maximize, **common)
    plain = SONew(twins, **common)
    for row in gradients(params, band=1)[:5]:
        take_step(coupled, params, row)
        signed = [-grad if maximize else grad for grad in row]
        take_step(plain, twins, [grad + 0.3 * twin.detach() for grad, twin in zip(signed, twins, strict=True)])
    for param, twin in zip(params, twins, strict=True):
        assert_close(param, twin, "float32")
        for name in ("momentum", "stats"):
            assert_close(coupled.state[param][name], plain.state[twin][name], "float32", context=name)


@every_backend
def test_a_zero_gradient_is_a_step_and_none_is_not(backend: str) -> None:
    """It makes state, counts, decays the averages and the parameter; without a gradient nothing is made or moved."""
    params = parameters((9,), (3, 4), (2,))
    hyper = Hyper(lr=0.1, weight_decay=0.5, eps=1e-2)
    optimizer, expected = SONew(params, lr=0.1, weight_decay=0.5, eps=1e-2, backend=backend), Expected(params, hyper)
    before = params[2].detach().clone()
    zeros = torch.zeros(9)
    rows = gradients(params, band=1)
    for row in ([zeros, rows[0][1], None], [zeros, torch.zeros(3, 4), None], [zeros, rows[1][1], None]):
        take_step(optimizer, params, row)
        expected.step(row)
    expected.check(optimizer, params)
    assert torch.equal(params[2], before)
    assert params[2] not in optimizer.state
    assert optimizer.state[params[0]]["count"].item() == 3
    assert not torch.equal(params[0], parameters((9,))[0]), "the decay moves it"


@every_backend
def test_a_closure_is_run_once_with_gradients_before_they_are_read(backend: str) -> None:
    params, twins = parameters((6,)), parameters((6,))
    optimizer, plain = SONew(params, lr=0.1, backend=backend), SONew(twins, lr=0.1, backend=backend)
    calls: list[bool] = []

    def closure() -> Any:
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = (params[0] ** 2).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        loss: Any = optimizer.step(closure=closure)
    assert calls == [True]
    assert loss.item() == (twins[0] ** 2).sum().item()
    take_step(plain, twins, [2 * twins[0].detach()])
    assert_same(bits(optimizer, params), bits(plain, twins))

    def broken() -> float:
        msg = "no loss today"
        raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match="no loss today"):
        optimizer.step(broken)
    assert_same(bits(optimizer, params), bits(plain, twins))


def test_step_hooks_see_the_step_and_may_change_its_arguments() -> None:
    """Global ones around the optimizer's own, in torch's order; a hook that is removed is not called."""
    (param,) = parameters((6,))
    optimizer = SONew([param], backend="reference", lr=0.1)
    param.grad = torch.ones(6)
    order: list[Any] = []

    def note(name: str) -> Callable[..., None]:
        return lambda this, args, kwargs: order.append((name, this is optimizer, len(args), dict(kwargs), len(this.state)))

    def bring_closure(_optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return (*args, lambda: 7.5), kwargs

    handles = [
        register_optimizer_step_pre_hook(note("global pre")),
        register_optimizer_step_post_hook(note("global post")),
        optimizer.register_step_pre_hook(note("pre")),
        optimizer.register_step_pre_hook(bring_closure),
        optimizer.register_step_post_hook(note("post")),
    ]
    try:
        assert optimizer.step() == 7.5
    finally:
        for handle in handles:
            handle.remove()
    assert [entry[0] for entry in order] == ["global pre", "pre", "post", "global post"]
    assert [entry[1:] for entry in order] == [(True, 1, {}, 0)] * 2 + [(True, 2, {}, 1)] * 2
    optimizer.step()
    assert len(order) == 4


def test_state_dict_hooks() -> None:
    """Before: the optimizer; after: the dict, which may be replaced."""
    (param,) = parameters((6,))
    optimizer = SONew([param], backend="reference")
    take_step(optimizer, [param], [torch.ones(6)])
    seen: list[Any] = []

    def tag(_optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "model": "mine"}

    optimizer.register_state_dict_pre_hook(lambda this: seen.append(this is optimizer))
    optimizer.register_state_dict_post_hook(tag)
    state = optimizer.state_dict()
    assert (seen, state["model"], sorted(state["state"][0])) == ([True], "mine", ["count", "momentum", "stats"])


@pytest.mark.parametrize("in_place", [True, False])
def test_load_hooks_come_before_and_after_the_load(in_place: bool) -> None:
    """The one before may change or replace the dict; the one after finds the state as it will be used, and may change that."""
    first, second = (parameters((6,), dtype=torch.bfloat16) for _ in range(2))
    one, other = SONew(first, lr=0.5), SONew(second, lr=0.1)
    take_step(one, first, [torch.full((6,), 0.1, dtype=torch.bfloat16)])
    found: list[Any] = []

    def before(_optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any] | None:
        changed = {**state, "param_groups": copy.deepcopy(state["param_groups"])}
        changed["param_groups"][0]["lr"] = 0.25
        if in_place:
            state.update(changed)
            return None
        return changed

    def after(optimizer: Optimizer) -> None:
        held = optimizer.state[second[0]]
        found.append((held["momentum"].dtype, torch.equal(held["momentum"], one.state[first[0]]["momentum"])))
        held["momentum"].mul_(2)

    other.register_load_state_dict_pre_hook(before)
    other.register_load_state_dict_post_hook(after)
    other.load_state_dict(one.state_dict())
    assert (other.param_groups[0]["lr"], one.param_groups[0]["lr"]) == (0.25, 0.5)
    assert found == [(torch.float32, True)]
    assert torch.equal(other.state[second[0]]["momentum"], 2 * one.state[first[0]]["momentum"])


def refusals() -> dict[str, Callable[[Callable[..., Optimizer]], Any]]:
    """Wrong uses that torch's base class or its loader refuses."""

    def after_a_group(change: Callable[[Optimizer], Any]) -> Callable[[Callable[..., Optimizer]], Any]:
        return lambda make: change(make(parameters((3,))))

    def two_groups(make: Callable[..., Optimizer]) -> Any:
        return make([{"params": parameters((3,))}, {"params": parameters((4,))}])

    def shared(make: Callable[..., Optimizer]) -> Any:
        params = parameters((3,), (4,))
        return make([{"params": params}, {"params": params[1:]}])

    def half_named(make: Callable[..., Optimizer]) -> Any:
        params = parameters((3,), (4,))
        return make([("weight", params[0]), params[1]])

    def names_come_late(make: Callable[..., Optimizer]) -> Any:
        optimizer = make([("weight", parameters((3,))[0])])
        optimizer.add_param_group({"params": parameters((4,))})

    return {
        "no parameters": lambda make: make([]),
        "a tensor": lambda make: make(parameters((3,))[0]),
        "a number": lambda make: make([3.0]),
        "no leaf": lambda make: make([2 * parameters((3,))[0]]),
        "a set in a group": lambda make: make([{"params": set(parameters((3,)))}]),
        "twice": shared,
        "half named": half_named,
        "names come late": names_come_late,
        "no dict": after_a_group(lambda optimizer: optimizer.add_param_group(parameters((4,)))),  # type: ignore[arg-type]
        "fewer groups": lambda make: make(parameters((3,))).load_state_dict(two_groups(make).state_dict()),
        "fewer tensors": lambda make: make(parameters((3,))).load_state_dict(make(parameters((3,), (4,))).state_dict()),
    }


@pytest.mark.parametrize("misuse", refusals().values(), ids=refusals())
def test_torch_refuses_in_its_own_words(misuse: Callable[[Callable[..., Optimizer]], Any]) -> None:
    """The error that AdamW gives, of the same type with the same message."""
    with pytest.raises((TypeError, ValueError)) as theirs:
        misuse(torch.optim.AdamW)
    with pytest.raises(type(theirs.value)) as ours:
        misuse(SONew)
    assert str(ours.value) == str(theirs.value)


def test_named_parameters() -> None:
    """Names stand in the groups and in the state dict, come back with it, and change no step."""
    model, twin = (torch.nn.Linear(4, 3) for _ in range(2))
    twin.load_state_dict(model.state_dict())
    named, plain = SONew(model.named_parameters(), lr=0.1, backend="cpu"), SONew(twin.parameters(), lr=0.1, backend="cpu")
    rows = gradients(list(model.parameters()), band=1)
    for row in rows[:3]:
        take_step(named, list(model.parameters()), row)
        take_step(plain, list(twin.parameters()), row)
    assert_same(bits(named, list(model.parameters())), bits(plain, list(twin.parameters())))
    assert named.param_groups[0]["param_names"] == ["weight", "bias"]
    fresh = SONew(model.named_parameters(), backend="cpu")
    fresh.load_state_dict(named.state_dict())
    assert fresh.param_groups[0]["param_names"] == ["weight", "bias"]
    extra = parameters((5,))[0]
    named.add_param_group({"params": [("extra", extra)], "lr": 0.5})
    take_step(named, [extra], [torch.ones(5)])
    assert (named.param_groups[1]["param_names"], named.state[extra]["count"].item()) == (["extra"], 1)


@pytest.fixture
def stepped() -> SONew:
    groups: list[dict[str, Any]] = [{"params": parameters((6,)), "maximize": True}, {"params": parameters((4,))}]
    optimizer = SONew(groups, lr=0.1, backend="reference")
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.ones_like(group["params"][0])
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("fused", [None, True])  # torch zeroes many at once where defaults say fused
@pytest.mark.parametrize("zero", [{}, {"set_to_none": True}, {"set_to_none": False}])
def test_zero_grad(stepped: SONew, zero: dict[str, bool], fused: bool | None) -> None:
    stepped.defaults["fused"] = fused
    params = [group["params"][0] for group in stepped.param_groups]
    stepped.zero_grad(**zero)
    if zero.get("set_to_none", True):
        assert [param.grad for param in params] == [None, None]
    else:
        assert [param.grad.tolist() for param in params] == [[0.0] * 6, [0.0] * 4]
    stepped.step()
    assert stepped.state[params[0]]["count"].item() == (1 if zero.get("set_to_none", True) else 2)


def test_copies_leave_hooks_behind_and_keep_every_setting(stepped: SONew) -> None:
    """As torch's own optimizers do."""
    called: list[int] = []
    stepped.register_step_pre_hook(lambda *_: called.append(1))
    twin = copy.deepcopy(stepped)
    twin.step()
    assert called == []
    assert repr(twin) == repr(stepped)
