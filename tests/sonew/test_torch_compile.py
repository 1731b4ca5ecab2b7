"""Steps inside `torch.compile`: the bits of the eager step, one graph, no break, and nothing compiled anew when numbers change."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from sonew import InvalidConfigError
from sonew.torch import SONew
from tests.expected import gradients, parameters
from tests.tolerances import assert_close

SHAPES = ((6, 5), (7,), (), (0, 3), (2, 3, 4, 4))
STEPS = 10
inductor_warns = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # about torch itself, when it is loaded


@pytest.fixture(autouse=True)
def strict_compiler() -> Iterator[None]:
    """An empty compiler, for which compiling anew is an error; backward may be traced."""
    torch.compiler.reset()
    counters.clear()
    with torch._dynamo.config.patch(error_on_recompile=True, trace_autograd_ops=True):
        yield
    torch.compiler.reset()


def compiled(function: Callable[..., Any], backend: str = "aot_eager") -> Callable[..., Any]:
    return torch.compile(function, backend=backend, fullgraph=True)


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def pair(*shapes: tuple[int, ...]) -> list[tuple[SONew, list[torch.nn.Parameter]]]:
    """Twice the same: a group of float32 and one of bfloat16, with settings of their own."""
    made = []
    for _ in range(2):
        params = [
            torch.nn.Parameter(param.detach().contiguous(memory_format=torch.channels_last) if param.ndim == 4 else param.detach())
            for param in parameters(*(shapes or SHAPES))
        ]
        narrow = parameters((9,), (4, 2), dtype=torch.bfloat16, seed=1)
        groups: list[dict[str, Any]] = [{"params": params}, {"params": narrow, "lr": 0.1, "band": 2, "weight_decay": 0.1}]
        made.append((SONew(groups, lr=0.05, backend="cpu", tuning="off"), params + narrow))
    return made


def hand_over(params: list[torch.nn.Parameter], grads: list[torch.Tensor]) -> None:
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad.clone()


def check_same(one: tuple[SONew, list[torch.nn.Parameter]], other: tuple[SONew, list[torch.nn.Parameter]]) -> None:
    for i, (a, b) in enumerate(zip(one[1], other[1], strict=True)):
        assert_close(a, b, "exact", context=f"param {i}")
        assert sorted(one[0].state[a]) == sorted(other[0].state[b])
        for name, value in other[0].state[b].items():
            assert_close(one[0].state[a][name], value, "exact", context=f"{name} {i}")


@inductor_warns
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_ten_steps_with_changing_numbers_are_one_graph(backend: str) -> None:
    one, other = pair()
    step = compiled(one[0].step, backend)
    rows = gradients(one[1], band=2)
    for i in range(STEPS):
        for optimizer, params in (one, other):
            optimizer.param_groups[0]["lr"] = 0.05 / (i + 1)
            optimizer.param_groups[1]["weight_decay"] = 0.01 * i
            hand_over(params, rows[i % len(rows)])
            params[1].grad = None
        step()
        other[0].step()
        check_same(one, other)
    assert graphs() == 1
    assert not counters["graph_break"]
    assert not one[0].state[one[1][1]]


@pytest.mark.parametrize("compiled_first", [True, False])
def test_schedulers_drive_a_compiled_step(compiled_first: bool) -> None:
    """OneCycleLR writes the step size and the first decay of both groups in every step.

    It wraps `step` in a function that torch never compiles: compiled before, the step is whole, compiled after, it is whole inside.
    """
    one, other = pair()
    step = compiled(one[0].step) if compiled_first else one[0].step
    schedulers = [torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=STEPS + 1) for optimizer, _ in (one, other)]
    if not compiled_first:
        step = torch.compile(one[0].step, backend="aot_eager")
    row = gradients(one[1], band=1)[0]
    for _ in range(STEPS):
        for _, params in (one, other):
            hand_over(params, row)
        step()
        other[0].step()
        for scheduler in schedulers:
            scheduler.step()
    check_same(one, other)
    assert one[0].param_groups[0]["lr"] == other[0].param_groups[0]["lr"] != 0.05
    assert graphs() == 1


@inductor_warns
@pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.full)])  # 16 s of C++
def test_what_the_graph_did_before_counts_and_what_it_does_later_sees_the_step(backend: str) -> None:
    one, other = pair()
    for optimizer, _ in (one, other):
        optimizer.param_groups[0]["lr"] = torch.tensor(0.05)
    row = gradients(one[1], band=1)[0]
    results = []

    def act(optimizer: SONew, params: list[torch.nn.Parameter]) -> torch.Tensor:
        with torch.no_grad():
            params[0].mul_(0.5)
            optimizer.param_groups[0]["lr"].mul_(0.5)
            assert params[0].grad is not None
            params[0].grad.add_(1.0)
        params[4].grad = torch.ones_like(params[4])
        params[2].grad = None
        optimizer.step()
        return params[0].detach() * 2.0

    run = compiled(act, backend)
    for _ in range(3):
        for (optimizer, params), take in ((one, run), (other, act)):
            hand_over(params, row)
            held = params[0].grad, optimizer.param_groups[0]["lr"]
            results.append(take(optimizer, params))
            assert params[0].grad is held[0]
            assert optimizer.param_groups[0]["lr"] is held[1]
            assert params[2].grad is None
            assert params[4].grad is not None
            assert bool((params[4].grad == 1).all())
        assert_close(results[-2], results[-1], "exact")
        check_same(one, other)
    assert one[0].param_groups[0]["lr"].item() == pytest.approx(0.05 / 8)
    assert graphs() == 1


def test_a_whole_training_step_is_one_graph() -> None:
    """Forward, backward, clipping and step. The gradients are the graph's own, so it returns them for the eager twin."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    twin = copy.deepcopy(model)
    optimizer, eager = (SONew(m.parameters(), lr=0.05, backend="cpu", tuning="off") for m in (model, twin))

    def train(x: torch.Tensor) -> list[torch.Tensor]:
        model(x).square().mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step(total_norm=norm)
        grads = [param.grad.clone() for param in model.parameters() if param.grad is not None]
        for param in model.parameters():
            param.grad = None
        return grads

    run = compiled(train)
    for i in range(4):
        bad = i == 2
        before = [param.detach().clone() for param in model.parameters()]
        grads = run(torch.full((3, 6), float("nan")) if bad else torch.randn(3, 6))
        assert all(param.grad is None for param in model.parameters())
        if bad:
            for param, old in zip(model.parameters(), before, strict=True):
                assert_close(param, old, "exact")
            continue
        assert len(grads) == 4
        hand_over(list(twin.parameters()), grads)
        eager.step()
        check_same((optimizer, list(model.parameters())), (eager, list(twin.parameters())))
    assert graphs() == 1


def closures(*params: torch.nn.Parameter) -> Callable[[], torch.Tensor]:
    """A closure that computes the gradients of a sum of squares."""

    def closure() -> torch.Tensor:
        loss = torch.stack([(param * param).sum() for param in params]).sum()
        loss.backward()
        return loss.detach()

    return closure


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # the compiler looks, not we
@pytest.mark.parametrize("traced", [True, False])
def test_closures_are_traced_or_break_the_graph(traced: bool) -> None:
    (one,), (other,) = parameters((6,)), parameters((6,))
    optimizer, eager = (SONew([param], lr=0.1, backend="cpu", tuning="off") for param in (one, other))
    step = torch.compile(optimizer.step, backend="aot_eager", fullgraph=traced)
    with torch._dynamo.config.patch(trace_autograd_ops=traced):
        for _ in range(3):
            one.grad = other.grad = None
            losses = step(closures(one)), eager.step(closures(other))  # type: ignore[arg-type]  # torch's closures return tensors too
            assert losses[0] == losses[1]
            check_same((optimizer, [one]), (eager, [other]))
    assert bool(counters["graph_break"]) is not traced


def test_gradients_that_come_and_go_cost_a_graph_per_pattern() -> None:
    one, other = pair((5,), (6,))
    step = compiled(one[0].step, "eager")
    rows = gradients(one[1], band=1)
    for i in range(8):
        for _, params in (one, other):
            hand_over(params, rows[i % len(rows)])
            if i % 3 == 0:
                params[1].grad = None
        with torch._dynamo.config.patch(error_on_recompile=False):
            step()
        other[0].step()
        check_same(one, other)
    assert graphs() == 2


def test_grad_scaler_reaches_a_compiled_step() -> None:
    one, other = pair((5,), (6, 2))
    rows = gradients(one[1], band=1)
    scalers = [torch.amp.GradScaler("cpu", init_scale=4.0) for _ in range(2)]
    one[0].step = compiled(one[0].step)  # type: ignore[method-assign]
    for i in range(4):
        before = [param.detach().clone() for param in one[1]]
        for (optimizer, params), scaler in zip((one, other), scalers, strict=True):
            hand_over(params, [grad * (float("inf") if i == 2 else 4.0) for grad in rows[i % len(rows)]])
            scaler.scale(torch.ones(()))
            scaler.step(optimizer)
            scaler.update()
        check_same(one, other)
        assert all(torch.equal(*x) for x in zip(before, one[1], strict=True)) is (i == 2)
    assert graphs() == 1


def test_hooks_run_once_per_step() -> None:
    one, other = pair((5,))
    calls = torch.zeros(2)

    def before(*_: object) -> None:
        calls[0].add_(1)

    def after(*_: object) -> None:
        calls[1].add_(calls[0])

    one[0].register_step_pre_hook(before)
    one[0].register_step_post_hook(after)
    step = compiled(one[0].step)
    for _ in range(3):
        for _, params in (one, other):
            hand_over(params, gradients(params, band=1)[0])
        step()
        other[0].step()
    check_same(one, other)
    assert calls.tolist() == [3.0, 6.0]


def test_a_load_compiles_nothing_anew() -> None:
    one, other = pair((5,))
    step = compiled(one[0].step, "eager")
    row = gradients(one[1], band=1)[0]
    for i in range(3):
        for optimizer, params in (one, other):
            hand_over(params, row)
            if i == 2:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        step()
        other[0].step()
        check_same(one, other)
    assert graphs() == 1


def test_errors_come_through_and_change_nothing() -> None:
    (param,) = parameters((5,))
    optimizer = SONew([param], backend="cpu")
    step = compiled(optimizer.step)
    param.grad = torch.ones(5)
    before = param.detach().clone()
    optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(InvalidConfigError, match=r"lr=-1\.0"):
        step()
    assert_close(param, before, "exact")
    assert_close(param.grad, torch.ones(5), "exact")


def test_copies_step_themselves() -> None:
    one, other = pair((5,))
    duplicate = copy.deepcopy(one[0])
    revived = pickle.loads(pickle.dumps(one[0]))  # noqa: S301  # our own bytes
    assert len({optimizer._handle for optimizer in (one[0], duplicate, revived)}) == 3
    params = [param for group in duplicate.param_groups for param in group["params"]]
    before = [param.detach().clone() for param in one[1]]
    row = gradients(params, band=1)[0]
    for owned in (params, other[1]):
        hand_over(owned, row)
    compiled(duplicate.step)()
    other[0].step()
    check_same((duplicate, params), other)
    for param, old in zip(one[1], before, strict=True):
        assert_close(param, old, "exact")
        assert param.grad is None


def test_graphs_keep_no_optimizer_alive() -> None:
    (param,) = parameters((5,))
    optimizer = SONew([param], backend="cpu")
    param.grad = torch.ones(5)
    step = compiled(optimizer.step)
    step()
    alive = weakref.ref(optimizer)
    del optimizer, step
    gc.collect()
    assert alive() is None
