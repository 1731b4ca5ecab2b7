"""Whole steps in a (simulated) CUDA graph give the bits of eager steps, and a capture that cannot be right is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from sonew import CaptureError, InvalidConfigError
from sonew.torch import SONew
from tests.expected import parameters, take_step
from tests.kernels.interpreter.capture import SETTINGS, STRIDED, Graph, Pair, World, all_alive, assert_same, bits, model, rows_of
from tests.sonew.torch_bits import skips


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


@pytest.mark.parametrize(("band", "graft", "tensor_lr"), [(1, "adam", True), (2, "none", False)])
def test_replays_and_eager_steps_in_turn_give_the_bits_of_eager_steps(world: World, band: int, graft: str, tensor_lr: bool) -> None:
    pair = Pair(world, torch.tensor(0.5) if tensor_lr else 0.5, band=band, graft=graft, weight_decay=0.1)
    rows = rows_of(pair.params)
    pair.step(rows[0], stay=True)
    pair.step(rows[1], STRIDED, stay=True)
    graph = pair.capture()
    pair.step(rows[0], STRIDED, stay=True)
    pair.replay(graph, rows[2])
    pair.set_lr(0.125)
    pair.set_decay(0.0)
    pair.replay(graph, rows[3])
    pair.step(rows[4])  # elsewhere, with the eager table
    pair.replay(graph, rows[5])
    pair.set_lr(0.25)
    pair.set_decay(0.3)
    pair.replay(graph, rows[6])
    pair.step(rows[7])
    other = pair.capture(1, STRIDED)  # a second graph, in which two tensors have no gradient
    pair.replay(other, rows[0], 1, STRIDED)
    pair.replay(graph, rows[1])
    assert [node[0] for node in graph.nodes[:1]] == [torch.ops.aten.copy_.default], "the table is uploaded first"


def test_poisoned_steps_are_skipped_and_counted_in_a_graph(world: World) -> None:
    """Each replay looks through the gradients of its own step, and leaves no verdict to the eager steps around it."""
    pair = Pair(world, torch.tensor(0.5), skip_nonfinite=True, weight_decay=0.1)
    rows = rows_of(pair.params)
    bad = [grad.clone() for grad in rows[2]]
    bad[1][-1] = float("nan")
    pair.step(rows[0], stay=True)
    graph = pair.capture(computes=True)
    for row in (rows[1], bad, rows[3]):
        pair.replay(graph, row)
    pair.step(bad)
    pair.replay(graph, bad)
    pair.step(rows[4])
    assert skips(pair.ours) == skips(pair.eager) == 3


def test_a_first_skip_cannot_be_counted_in_a_graph(world: World) -> None:
    pair = Pair(world, torch.tensor(0.5))
    pair.step(rows_of(pair.params)[0])
    with world.capture(computes=True), pytest.raises(CaptureError, match="nothing has counted skips yet"):
        pair.ours.step(total_norm=torch.tensor(1.0))


def test_a_tensor_lr_may_be_any_one_element(world: World) -> None:
    """Also one that is a part of another tensor, and one of shape (1,)."""
    rates = torch.tensor([3.0, 0.5, 7.0])
    for lr in (rates[1], torch.tensor([0.5])):
        pair = Pair(world, lr)
        rows = rows_of(pair.params)
        pair.step(rows[0])
        pair.set_lr(0.125)
        pair.step(rows[1])
        pair.replay(pair.capture(), rows[2])


def test_a_graph_outlives_its_plan(world: World) -> None:
    """A tensor that joins remakes the plan; the graph keeps what it reads, and settings still reach it."""
    pair = Pair(world, 0.5, weight_decay=0.1)
    rows = rows_of(pair.params)
    pair.step(rows[0], 4)
    graph = pair.capture(4)
    pair.step(rows[1])
    assert len(pair.ours._captures.launches(0, pair.ours._launches.settings(0, pair.ours.param_groups[0]))) == 1
    pair.set_decay(0.3)
    pair.set_lr(0.125)
    pair.ours.push_settings()
    pair.replay(graph, rows[2], 4)
    pair.step(rows[3])
    assert all_alive(graph)


def test_what_a_graph_reads_stays_allocated(world: World) -> None:
    """Also the contiguous copies of a strided tensor that eager steps have no use for any more."""
    pair = Pair(world, torch.tensor(0.5))
    rows = rows_of(pair.params)
    pair.step(rows[0])
    graph = pair.capture()
    pair.params[STRIDED].data = pair.params[STRIDED].data.contiguous()
    pair.step([grad.contiguous() for grad in rows[1]])
    pair.ours.param_groups[0]["lr"] = 0.5
    pair.step([grad.contiguous() for grad in rows[2]])
    assert all_alive(graph)


def test_eager_steps_allocate_nothing_and_look_at_nothing(world: World) -> None:
    """With every gradient elsewhere and another step size in a tensor: what a step asks torch for besides its launches."""
    params = model()
    lr = torch.tensor(0.5)
    optimizer = SONew(params, lr=lr, capturable=True, **SETTINGS)
    rows = [[grad.clone() for grad in row] for row in rows_of(params)]
    for row in rows[:2]:
        take_step(optimizer, params, row)
    world.deaf = True  # the interpreter's launches copy their arguments
    for row in rows[2:5]:
        lr.mul_(0.5)
        with Graph() as asked:
            take_step(optimizer, params, row)
        assert [args[0].shape for _, args, _ in asked.nodes] == [params[STRIDED].shape] * 3, "strided: in, in and out again"


def spoilers() -> dict[str, tuple[Callable[[SONew, list[torch.nn.Parameter]], None], str]]:
    """What makes a step that was ready impossible to capture, and how the refusal puts it."""

    def set_value(name: str, value: Any) -> Callable[[SONew, Any], None]:
        return lambda optimizer, _params: optimizer.param_groups[0].update({name: value})

    def graft(optimizer: SONew, _params: Any) -> None:
        optimizer.param_groups[0]["graft"] = "sgd"
        optimizer.push_settings()

    def joined(optimizer: SONew, _params: Any) -> None:
        late = torch.nn.Parameter(torch.ones(3))
        late.grad = torch.ones(3)
        optimizer.param_groups[0]["params"].append(late)

    def state(optimizer: SONew, params: list[torch.nn.Parameter]) -> None:
        optimizer.state[params[0]]["momentum"] = optimizer.state[params[0]]["momentum"].clone()

    def strides(_optimizer: SONew, params: list[torch.nn.Parameter]) -> None:
        params[0].grad = torch.empty(7, 40).t()

    def second_group(optimizer: SONew, _params: Any) -> None:
        optimizer.add_param_group({"params": parameters((3,)), "capturable": False})

    def wide_lr(optimizer: SONew, params: list[torch.nn.Parameter]) -> None:
        optimizer.param_groups[0]["lr"] = torch.tensor(0.5, dtype=torch.float64)
        take_step(optimizer, params, [param.grad for param in params])

    return {
        "not capturable": (set_value("capturable", False), r"Attempting CUDA graph capture of step\(\) for an instance of SONew but param"),
        "one group not capturable": (second_group, r"param_groups' capturable is False"),
        "number": (set_value("weight_decay", 0.25), r"settings changed.*push_settings\(\) or take one eager step"),
        "another lr": (set_value("lr", torch.tensor(0.5)), r"settings changed"),
        "choice": (graft, r"kernels have not run with these settings.*one eager step"),
        "plan": (set_value("band", 3), r"not those of the last eager step: take one eager step"),
        "new tensor": (joined, r"not those of the last eager step"),
        "state": (state, r"not those of the last eager step"),
        "strides": (strides, r"shape \(40, 7\) has no contiguous copy yet: take one eager step"),
        "lr of another type": (
            wide_lr,
            r"lr is a torch.float64 tensor on cpu, which a graph cannot read: pass a torch.float32 tensor on cpu",
        ),
        "bad value": (set_value("eps", -1.0), r"eps=-1.0 is not allowed"),
    }


@pytest.mark.parametrize(("spoil", "message"), spoilers().values(), ids=spoilers())
def test_what_cannot_be_captured_is_refused_before_anything_happens(world: World, spoil: Callable[..., None], message: str) -> None:
    params = model()
    optimizer = SONew(params, capturable=True, **SETTINGS)
    for row in rows_of(params)[:2]:
        take_step(optimizer, params, row)
    spoil(optimizer, params)
    before = bits(optimizer, params)
    with world.capture() as graph, pytest.raises((CaptureError, InvalidConfigError), match=message) as caught:
        optimizer.step()
    assert graph.nodes == []
    assert_same(bits(optimizer, params), before)
    assert isinstance(caught.value, RuntimeError | ValueError)


def test_every_capture_follows_an_eager_step(world: World) -> None:
    """Not the first step, not two in one, and not after steps that did not make ready for it."""
    params = model()
    optimizer = SONew(params, capturable=True, **SETTINGS)
    rows = rows_of(params)
    for param, grad in zip(params, rows[0], strict=True):
        param.grad = grad
    with world.capture(), pytest.raises(CaptureError, match="take one eager step"):
        optimizer.step()
    assert not optimizer.state
    optimizer.param_groups[0]["capturable"] = False
    optimizer.step()
    optimizer.param_groups[0]["capturable"] = True
    with world.capture(), pytest.raises(CaptureError, match="no table is ready"):
        optimizer.step()
    optimizer.step()
    with world.capture() as graph:
        optimizer.step()
        launched = len(graph.nodes)
        with pytest.raises(CaptureError, match="one eager step with capturable=True before each capture"):
            optimizer.step()
    assert len(graph.nodes) == launched > 0


def test_choices_that_a_graph_holds_are_not_pushed_in_silence(world: World) -> None:
    pair = Pair(world, torch.tensor(0.5), weight_decay=0.1)
    group = pair.ours.param_groups[0]
    pair.step(rows_of(pair.params)[0])
    pair.capture()
    for name, value, words in (("graft", "sgd", "graft='sgd' cannot reach"), ("lr", 0.5, "reads the lr of its capture")):
        kept, group[name] = group[name], value
        with pytest.raises(CaptureError, match=words):
            pair.ours.push_settings()
        group[name] = kept
    pair.ours.push_settings()
    with world.capture(), pytest.raises(CaptureError, match="between replays"):
        pair.ours.push_settings()


def test_copies_hold_no_captures_and_loading_frees_none(world: World) -> None:
    pair = Pair(world, torch.tensor(0.5))
    rows = rows_of(pair.params)
    pair.step(rows[0])
    graph = pair.capture()
    for param in pair.params:
        param.grad = None
    twin = copy.deepcopy(pair.ours)
    held = pair.ours._captures
    assert twin._captures is not held
    assert twin._captures._held == {}
    pair.ours.load_state_dict(pair.ours.state_dict())
    assert pair.ours._captures is held
    graph.replay()
    with world.capture(), pytest.raises(CaptureError, match="take one eager step"):
        pair.ours.step()
    lr = twin.param_groups[0]["lr"]
    assert isinstance(lr, torch.Tensor)
    assert lr is not pair.ours.param_groups[0]["lr"]
