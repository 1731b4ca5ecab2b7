"""What `SONew` refuses, and that each refusal names the value, the allowed range and the fix."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sonew import BackendUnavailableError, InvalidConfigError, UnsupportedProblemError
from sonew.torch import SONew
from tests.expected import parameters, take_step
from tests.tolerances import assert_close

BAD: list[tuple[dict[str, Any], list[str]]] = [
    ({"lr": -0.1}, ["lr=-0.1", ">= 0", "lr=1e-3"]),
    ({"lr": float("nan")}, ["lr=nan", "finite"]),
    ({"lr": "fast"}, ["lr='fast'", "number"]),
    ({"lr": torch.tensor([0.1, 0.2])}, ["lr is a tensor of shape (2,)", "one element", "torch.tensor(1e-3"]),
    ({"lr": torch.tensor([])}, ["shape (0,)", "one element"]),
    ({"lr": torch.tensor(1)}, ["torch.int64", "floating"]),
    ({"lr": torch.tensor(0.1 + 0j)}, ["torch.complex64", "real"]),
    ({"lr": torch.tensor(-0.1)}, ["lr=-0.1", ">= 0"]),
    ({"weight_decay": torch.tensor(0.1)}, ["weight_decay=tensor(0.1000)", "number"]),
    ({"capturable": 1}, ["capturable=1", "True or False"]),
    ({"betas": (0.9, 1.0)}, ["beta2=1.0", "[0, 1)", "betas=(0.9, 0.99)"]),
    ({"betas": (-0.1, 0.9)}, ["beta1=-0.1", "[0, 1)"]),
    ({"betas": 0.9}, ["betas=0.9", "pair", "betas=(0.9, 0.99)"]),
    ({"betas": (0.9, 0.99, 0.999)}, ["betas=(0.9, 0.99, 0.999)", "pair"]),
    ({"eps": -1e-8}, ["eps=-1e-08", ">= 0"]),
    ({"eps": float("inf")}, ["eps=inf", "finite"]),
    ({"eps_rel": -1.0}, ["eps_rel=-1.0", ">= 0"]),
    ({"gamma": -0.5}, ["gamma=-0.5", ">= 0"]),
    ({"gamma": True}, ["gamma=True", "number"]),
    ({"weight_decay": -0.5}, ["weight_decay=-0.5", ">= 0"]),
    ({"band": -1}, ["band=-1", ">= 0", "band=1"]),
    ({"band": 1.0}, ["band=1.0", "integer"]),
    ({"graft": "lamb"}, ["graft='lamb'", "'adam'", "'none'"]),
    ({"graft": None}, ["graft=None", "'adam'"]),
    ({"chain": 0}, ["chain=0", ">= 1", '"row"']),
    ({"chain": "column"}, ["chain='column'", '"row"', '"tensor"']),
    ({"state_dtype": torch.float16}, ["state_dtype='float16'", "float32", "float64"]),
    ({"state_dtype": "int8"}, ["state_dtype='int8'", "float32"]),
    ({"backend": "cuda"}, ["backend='cuda'", "'auto'", "'reference'"]),
    ({"tuning": "sometimes"}, ["tuning='sometimes'", "'on'", "'pinned'"]),
]


@pytest.mark.parametrize(("arguments", "parts"), BAD, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_bad_arguments_are_refused_when_given(arguments: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        SONew(parameters((3,)), **arguments)
    assert [part for part in parts if part not in str(caught.value)] == []
    assert isinstance(caught.value, ValueError)


def test_a_bad_group_leaves_the_optimizer_as_it_was() -> None:
    first, second = parameters((3,), (4,))
    optimizer = SONew([first])
    with pytest.raises(InvalidConfigError, match="band=-3"):
        optimizer.add_param_group({"params": [second], "band": -3})
    assert [group["params"] for group in optimizer.param_groups] == [[first]]
    take_step(optimizer, [first], [torch.ones(3)])
    assert optimizer.state[first]["count"].item() == 1


def test_a_setting_spoiled_later_is_refused_by_the_step() -> None:
    (param,) = parameters((3,))
    optimizer = SONew([param])
    take_step(optimizer, [param], [torch.ones(3)])
    optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(InvalidConfigError, match=r"lr=-1\.0"):
        optimizer.step()
    assert optimizer.state[param]["count"].item() == 1


def test_unknown_arguments_and_empty_lists_are_refused() -> None:
    with pytest.raises(TypeError, match="momentum"):
        SONew(parameters((3,)), momentum=0.9)  # type: ignore[call-arg]  # the error under test
    with pytest.raises(ValueError, match="empty parameter list"):
        SONew([])


@pytest.mark.parametrize(("dtype", "word"), [(torch.complex64, "complex"), (torch.complex128, "complex")])
def test_complex_parameters_are_refused(dtype: torch.dtype, word: str) -> None:
    with pytest.raises(UnsupportedProblemError, match=rf"does not support {word} parameters.*another optimizer"):
        SONew([torch.nn.Parameter(torch.zeros(3, dtype=dtype))])


def test_integer_parameters_are_refused() -> None:
    with pytest.raises(UnsupportedProblemError, match=r"parameters of this type, got torch\.int64"):
        SONew([torch.nn.Parameter(torch.zeros(3, dtype=torch.int64), requires_grad=False)])


@pytest.mark.filterwarnings("ignore:.*sparse:UserWarning")  # torch announces that its sparse layouts are in beta
def test_sparse_parameters_are_refused() -> None:
    with pytest.raises(UnsupportedProblemError, match="does not support sparse parameters"):
        SONew([torch.nn.Parameter(torch.zeros(3, 3).to_sparse())])


@pytest.mark.parametrize("steps_before", [0, 1])
def test_sparse_gradients_are_refused_and_change_nothing(steps_before: int) -> None:
    embedding = torch.nn.Embedding(5, 3, sparse=True)
    optimizer = SONew(embedding.parameters(), backend="cpu")
    for _ in range(steps_before):
        take_step(optimizer, [embedding.weight], [torch.ones(5, 3)])
    optimizer.zero_grad()
    before = embedding.weight.detach().clone()
    embedding(torch.tensor([1, 2])).sum().backward()
    for _ in range(2):
        with pytest.raises(UnsupportedProblemError, match=r"does not support sparse gradients.*sparse=False"):
            optimizer.step()
    assert_close(embedding.weight, before, "exact")


@pytest.mark.parametrize(
    ("backend", "arguments", "reason"),
    [
        ("triton", {}, r"triton: "),
        ("cpu", {"state_dtype": torch.float64}, r"cpu: state_dtype=float64 is not one of"),
        ("cpu", {"band": 40}, r"cpu: band=40 is not one of"),
    ],
)
def test_an_explicit_backend_never_falls_back(backend: str, arguments: dict[str, Any], reason: str) -> None:
    (param,) = parameters((3,))
    before = param.detach().clone()
    optimizer = SONew([param], backend=backend, **arguments)
    param.grad = torch.ones(3)
    with pytest.raises(BackendUnavailableError, match=reason) as caught:
        optimizer.step()
    assert f"backend='{backend}'" in str(caught.value)
    assert "reference: available" in str(caught.value)
    assert_close(param, before, "exact")


@pytest.mark.parametrize(
    ("name", "value"),
    [("foreach", True), ("fused", "yes"), ("differentiable", True), ("skip_nonfinite", "yes"), ("counters", "yes"), ("seed", "x")],
)
def test_options_written_later_are_checked_by_the_next_step(name: str, value: Any) -> None:
    params = parameters((3,))
    optimizer = SONew(params)
    take_step(optimizer, params, [torch.ones(3)])
    before = params[0].detach().clone()
    optimizer.param_groups[0][name] = value
    with pytest.raises(InvalidConfigError, match=f"{name}={value!r}"):
        optimizer.step()
    assert torch.equal(params[0], before)


def test_a_list_of_betas_changed_in_place_is_seen() -> None:
    params, twins = parameters((3,)), parameters((3,))
    one, other = SONew(params), SONew(twins)
    betas = [0.5, 0.9]
    one.param_groups[0]["betas"] = betas
    other.param_groups[0]["betas"] = (0.5, 0.9)
    for later in ((0.5, 0.9), (0.0, 0.8)):
        betas[:] = later
        other.param_groups[0]["betas"] = later
        take_step(one, params, [torch.ones(3)])
        take_step(other, twins, [torch.ones(3)])
    assert torch.equal(params[0], twins[0])
    assert torch.equal(one.state[params[0]]["stats"], other.state[twins[0]]["stats"])


def test_a_pickle_from_before_an_option_takes_its_default() -> None:
    params = parameters((3,))
    old = SONew(params, lr=0.5).__getstate__()
    for kept in (old["defaults"], *old["param_groups"]):
        del kept["maximize"], kept["state_dtype"]
    optimizer = SONew.__new__(SONew)
    optimizer.__setstate__(old)
    assert (optimizer.param_groups[0]["maximize"], optimizer.param_groups[0]["state_dtype"]) == (False, "float32")
    take_step(optimizer, optimizer.param_groups[0]["params"], [torch.ones(3)])
    assert optimizer.param_groups[0]["lr"] == 0.5
