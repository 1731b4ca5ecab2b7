"""A tensor as step size, `capturable`, and captures that are refused, where there is no GPU: see tests/kernels for captures that work."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from sonew import CaptureError, InvalidConfigError
from sonew.torch import SONew
from tests.expected import gradients, parameters, take_step

every_backend = pytest.mark.parametrize("backend", ["reference", "cpu"])


def bits(optimizer: SONew, params: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Copies of parameters and state."""
    held = [tensor for param in params for tensor in (param, *optimizer.state[param].values())]
    return [tensor.detach().clone() for tensor in held]


def assert_same(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> None:
    assert len(one) == len(other)
    assert [i for i, (a, b) in enumerate(zip(one, other, strict=True)) if not torch.equal(a, b)] == []


@pytest.fixture
def capturing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, torch says that the current stream is being captured."""

    def start() -> None:
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)

    return start


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_tensor_lr_is_read_in_every_step(backend: str, dtype: torch.dtype) -> None:
    """Filled by hand or by a scheduler it gives the bits of the same numbers; every rate here is exact in every type."""
    params, twins = parameters((6, 5), (7,)), parameters((6, 5), (7,))
    lr = torch.tensor(0.5, dtype=dtype)
    ours, plain = SONew(params, lr=lr, backend=backend), SONew(twins, lr=0.5, backend=backend)
    schedulers = [torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5) for optimizer in (ours, plain)]
    for count, row in enumerate(gradients(params, band=1)[:6]):
        if count == 3:
            lr.fill_(0.0625)
            plain.param_groups[0]["lr"] = 0.0625
        take_step(ours, params, row)
        take_step(plain, twins, row)
        for scheduler in schedulers:
            scheduler.step()
        assert_same(bits(ours, params), bits(plain, twins))
    assert ours.param_groups[0]["lr"] is lr
    assert lr.item() == plain.param_groups[0]["lr"] != 0.5


def test_settings_are_told_apart_without_comparing_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparing a GPU's values would wait for it."""
    params = parameters((6,))
    optimizer = SONew(params, lr=torch.tensor(0.5), backend="reference")
    rows = gradients(params, band=1)
    take_step(optimizer, params, rows[0])

    def refuse(*_: Any) -> None:
        msg = "compared"
        raise AssertionError(msg)

    optimizer.param_groups[0]["lr"] = torch.tensor(0.0)
    before = params[0].detach().clone()
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "__eq__", refuse)
        patch.setattr(torch.Tensor, "__ne__", refuse)
        optimizer.push_settings()
    optimizer.step()
    assert torch.equal(params[0], before), "another tensor is another step size"


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_bad_value_in_a_tensor_lr_is_refused(value: float) -> None:
    params = parameters((6,))
    with pytest.raises(InvalidConfigError, match=f"lr={value}.*>= 0"):
        SONew(params, lr=torch.tensor(value))
    lr = torch.tensor(0.5)
    optimizer = SONew(params, lr=lr, backend="reference")
    take_step(optimizer, params, [torch.ones(6)])
    before = bits(optimizer, params)
    lr.fill_(value)
    with pytest.raises(InvalidConfigError, match=f"lr={value}.*>= 0"):
        optimizer.step()
    assert_same(bits(optimizer, params), before)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))])  # noqa: S301  # our own bytes
def test_copies_have_an_lr_of_their_own(copier: Callable[[SONew], SONew]) -> None:
    optimizer = SONew(parameters((6,)), lr=torch.tensor([0.5]), capturable=True, backend="reference")
    twin = copier(optimizer)
    group = twin.param_groups[0]
    take_step(twin, group["params"], [torch.ones(6)])
    assert (group["lr"].tolist(), group["capturable"]) == ([0.5], True)
    group["lr"].zero_()
    assert optimizer.param_groups[0]["lr"].item() == 0.5


def test_a_checkpoint_keeps_a_tensor_lr_and_leaves_capturable_alone() -> None:
    saved = SONew(parameters((6,)), lr=torch.tensor(0.5), capturable=True, backend="reference")
    loaded = SONew(parameters((6,)), lr=0.1, backend="reference")
    loaded.load_state_dict(saved.state_dict())
    group = loaded.param_groups[0]
    assert group["capturable"] is False
    assert group["lr"].item() == 0.5
    assert group["lr"] is not saved.param_groups[0]["lr"]
    older = saved.state_dict()
    del older["param_groups"][0]["capturable"]
    loaded = SONew(parameters((6,)), backend="reference")
    loaded.load_state_dict(older)
    assert loaded.param_groups[0]["capturable"] is False


@every_backend
@pytest.mark.parametrize("steps_before", [0, 2])
@pytest.mark.parametrize("capturable", [False, True])
def test_a_capture_is_refused_and_changes_nothing(backend: str, steps_before: int, capturable: bool, capturing: Callable[[], None]) -> None:
    params = parameters((6, 5), (7,))
    optimizer = SONew(params, capturable=capturable, backend=backend)
    rows = gradients(params, band=1)
    for row in rows[:steps_before]:
        take_step(optimizer, params, row)
    before, plans = bits(optimizer, params), optimizer.plans()
    capturing()
    asked: list[float] = []

    def closure() -> float:
        asked.append(0.0)
        return 0.0

    words = "not those of the last eager step" if steps_before == 0 else f"backend='{backend}' cannot be captured.*backend='triton'"
    if not capturable:
        words = r"^Attempting CUDA graph capture of step\(\) for an instance of SONew but param_groups' capturable is False\. Pass"
    for param, grad in zip(params, rows[3], strict=True):
        param.grad = grad
    with pytest.raises(CaptureError, match=words) as caught:
        optimizer.step(closure)
    assert isinstance(caught.value, RuntimeError)
    assert len(asked) == capturable, "without capturable not even the closure runs"
    assert_same(bits(optimizer, params), before)
    assert optimizer.plans() == plans
    with pytest.raises(CaptureError, match=r"push_settings\(\) cannot be captured"):
        optimizer.push_settings()


def test_a_process_without_a_gpu_is_not_asked_for_captures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch built for the CPU has nothing to ask."""

    def refuse() -> bool:
        msg = "asked"
        raise AssertionError(msg)

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", refuse)
    params = parameters((6,))
    optimizer = SONew(params, capturable=True, backend="reference")
    take_step(optimizer, params, [torch.ones(6)])
    optimizer.push_settings()
    assert optimizer.state[params[0]]["count"].item() == 1


@every_backend
def test_pushed_settings_count_in_the_next_step_and_are_checked(backend: str) -> None:
    params, twins = parameters((6, 5)), parameters((6, 5))
    ours, plain = SONew(params, lr=0.5, backend=backend), SONew(twins, lr=0.5, backend=backend)
    ours.push_settings()
    rows = gradients(params, band=1)
    for row, decay in zip(rows[:3], (0.0, 0.5, 0.25), strict=True):
        for optimizer in (ours, plain):
            optimizer.param_groups[0]["weight_decay"] = decay
        ours.push_settings()
        take_step(ours, params, row)
        take_step(plain, twins, row)
        assert_same(bits(ours, params), bits(plain, twins))
    ours.param_groups[0]["eps"] = -1.0
    with pytest.raises(InvalidConfigError, match=r"eps=-1\.0"):
        ours.push_settings()
