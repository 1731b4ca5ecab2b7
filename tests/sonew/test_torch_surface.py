"""`sonew.torch.SONew` does what `sonew.reference` says, for every backend that runs on a CPU, in every shape of use."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sonew import SonewFallbackWarning
from sonew.config import GRAFTS, Chain, Hyper, Plan, Problem
from sonew.dispatch import make_plan
from sonew.torch import SONew, planning
from tests.expected import Expected, gradients, parameters, take_step
from tests.tolerances import assert_close

SHAPES = ((5, 7), (3,), (), (1,), (0,), (2, 3, 4))
every_backend = pytest.mark.parametrize("backend", ["reference", "cpu"])


def keywords(hyper: Hyper) -> dict[str, Any]:
    """The surface's arguments for these settings."""
    names = ("lr", "eps", "weight_decay", "band", "eps_rel", "gamma", "graft", "chain")
    return {"betas": (hyper.beta1, hyper.beta2)} | {name: getattr(hyper, name) for name in names}


def warm_up(backend: str, params: list[Any], hyper: Hyper, **more: Any) -> tuple[SONew, Expected, list[list[torch.Tensor]]]:
    """An optimizer and its expectation after a history taken with lr = 0, so that windows are well-conditioned when values count."""
    grads = gradients(params, band=hyper.band)
    expected = Expected(params, replace(hyper, lr=0.0), dtype=np.float64 if more.get("state_dtype") == torch.float64 else np.float32)
    optimizer = SONew(params, **keywords(replace(hyper, lr=0.0)), backend=backend, **more)
    for row in grads:
        take_step(optimizer, params, row)
        expected.step(row)
    expected.hypers = (hyper,) * len(params)
    optimizer.param_groups[0]["lr"] = hyper.lr
    return optimizer, expected, gradients(params, band=hyper.band, seed=100)[:3]


@every_backend
@pytest.mark.parametrize("graft", GRAFTS)
@pytest.mark.parametrize(("band", "chain"), [(1, "tensor"), (2, "row"), (1, 4), (0, "tensor"), (4, 11)])
def test_steps_equal_the_reference(backend: str, graft: Any, band: int, chain: Chain) -> None:
    hyper = Hyper(lr=0.1, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.2, band=band, eps_rel=1e-3, graft=graft, chain=chain)
    params = parameters(*SHAPES)
    optimizer, expected, rows = warm_up(backend, params, hyper)
    for row in rows:
        take_step(optimizer, params, row)
        expected.step(row)
    expected.check(optimizer, params)
    assert {plan.backend for plan in optimizer.plans()} == {backend}


@every_backend
def test_gamma_reaches_the_fallback_rule(backend: str) -> None:
    params = parameters((40,))
    hyper = Hyper(lr=1.0, gamma=0.9, graft="none")
    optimizer, expected, rows = warm_up(backend, params, hyper)
    expected.step(rows[0])
    take_step(optimizer, params, rows[0])
    expected.check(optimizer, params)
    optimizer, without, rows = warm_up(backend, parameters((40,)), replace(hyper, gamma=0.0))
    without.step(rows[0])
    assert np.abs(without.params[0] - expected.params[0]).max() > 0.01, "gamma changes nothing here, so the test is blind"


@every_backend
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_parameters_keep_float32_state(backend: str, dtype: torch.dtype) -> None:
    params = parameters((6, 5), (9,), dtype=dtype)
    optimizer, expected, rows = warm_up(backend, params, Hyper(lr=0.1, weight_decay=0.1))
    for row in rows:
        take_step(optimizer, params, row)
        expected.step(row)
    expected.check(optimizer, params)
    assert {params[0].dtype, params[1].dtype} == {dtype}
    assert {optimizer.state[param][name].dtype for param in params for name in ("momentum", "stats")} == {torch.float32}


@pytest.mark.parametrize("state_dtype", [torch.float64, torch.float32])
def test_float64_parameters(state_dtype: torch.dtype) -> None:
    """State and arithmetic follow state_dtype; the parameter keeps its own digits."""
    params = parameters((4, 6), dtype=torch.float64)
    optimizer, expected, rows = warm_up("reference", params, Hyper(lr=0.1, weight_decay=0.1), state_dtype=state_dtype)
    take_step(optimizer, params, rows[0])
    expected.step(rows[0])
    expected.check(optimizer, params)
    assert params[0].dtype == torch.float64
    assert optimizer.state[params[0]]["stats"].dtype == state_dtype


def test_mixed_types_in_one_group_are_separate_launches() -> None:
    params = [*parameters((7,), (3, 3)), *parameters((8,), dtype=torch.bfloat16)]
    optimizer, expected, rows = warm_up("cpu", params, Hyper(lr=0.1))
    take_step(optimizer, params, rows[0])
    expected.step(rows[0])
    expected.check(optimizer, params)
    assert sorted(plan.problem.param_dtype for plan in optimizer.plans()) == ["bfloat16", "float32"]


@every_backend
def test_groups_have_settings_of_their_own_and_may_come_late(backend: str) -> None:
    first, second, late = parameters((12,), (10,), (3, 4))
    hypers = [Hyper(lr=0.1), Hyper(lr=0.5, band=2, beta1=0.5, graft="sgd"), Hyper(lr=0.1, weight_decay=0.3, chain="row")]
    groups = [{"params": [first], "lr": 0.1}, {"params": [second], **keywords(hypers[1])}]
    optimizer = SONew(groups, backend=backend)
    expected = Expected([first, second, late], *hypers)
    grads = gradients([first, second, late], band=2)
    for step, row in enumerate(grads):
        if step == 2:
            optimizer.add_param_group({"params": late, **keywords(hypers[2])})
        shown = row if step >= 2 else [row[0], row[1], None]
        take_step(optimizer, [first, second, late], shown)
        expected.step(shown)
    for i, param in enumerate([first, second, late]):
        assert optimizer.state[param]["count"].item() == expected.counts[i]
        assert_close(optimizer.state[param]["momentum"], expected.momentum[i], "float32 averages")
        assert_close(optimizer.state[param]["stats"], expected.stats[i], "float32 averages")
    assert [plan.problem.band for plan in optimizer.plans()] == [1, 2, 1]


@every_backend
def test_tensors_without_gradient_are_left_alone(backend: str) -> None:
    """No count, no state, no decay while the gradient is None; the other tensors do not notice."""
    params = parameters((9,), (4, 4), (6,))
    hyper = Hyper(lr=0.05, weight_decay=0.5)
    optimizer, expected, rows = warm_up(backend, params, hyper)
    before, state = params[1].detach().clone(), {k: v.clone() for k, v in optimizer.state[params[1]].items()}
    shown = [rows[0][0], None, rows[0][2]]
    take_step(optimizer, params, shown)
    expected.step(shown)
    assert torch.equal(params[1], before)
    assert all(torch.equal(optimizer.state[params[1]][name], value) for name, value in state.items())
    take_step(optimizer, params, rows[1])  # the gradient is back
    expected.step(rows[1])
    expected.check(optimizer, params)


@every_backend
def test_a_gradient_may_come_later(backend: str) -> None:
    params = parameters((8,), (5,), (3, 3))
    optimizer, expected = SONew(params, backend=backend, lr=0.0), Expected(params, Hyper(lr=0.0))
    optimizer.step()
    assert optimizer.plans() == []
    for step, row in enumerate(gradients(params, band=1)):
        shown = [row[0], row[1] if step > 1 else None, None]
        take_step(optimizer, params, shown)
        expected.step(shown)
    expected.check(optimizer, params)
    assert expected.counts[2] == 0
    assert optimizer.state.get(params[2]) is None


@every_backend
@pytest.mark.parametrize("what", ["transposed", "channels_last", "strided slice", "expanded gradient", "contiguous parameter"])
def test_strides_do_not_change_the_result(backend: str, what: str) -> None:
    """Chains follow the logical order, so a strided tensor steps like its contiguous copy, bit for bit."""

    def arrange(x: torch.Tensor) -> torch.Tensor:
        match what:
            case "channels_last":
                return x.to(memory_format=torch.channels_last)
            case "strided slice":
                return torch.stack([x, x], dim=-1)[..., 0]
            case _:
                return x.transpose(1, 3).contiguous().transpose(1, 3)

    plain = parameters((2, 3, 4, 5))
    shown = [plain[0].detach().clone().requires_grad_(True)]
    if what not in ("expanded gradient", "contiguous parameter"):
        shown = [arrange(plain[0].detach()).requires_grad_(True)]
        assert not shown[0].is_contiguous()
    hyper = Hyper(lr=0.2, weight_decay=0.1, band=2)
    optimizers = [SONew(params, **keywords(hyper), backend=backend) for params in (plain, shown)]
    for row in gradients(plain, band=2):
        grad = row[0]
        if what == "expanded gradient":
            grad = grad[:, :1].expand(2, 3, 4, 5)
        take_step(optimizers[0], plain, [grad.contiguous()])
        take_step(optimizers[1], shown, [grad if what == "expanded gradient" else arrange(grad)])
    assert_close(shown[0], plain[0], "exact")
    for name in ("momentum", "stats"):
        assert optimizers[1].state[shown[0]][name].is_contiguous()
        assert_close(optimizers[1].state[shown[0]][name], optimizers[0].state[plain[0]][name], "exact", context=name)


@every_backend
def test_closure_runs_with_gradients_and_its_loss_is_returned(backend: str) -> None:
    (param,) = parameters((6,))
    optimizer = SONew([param], lr=0.1, backend=backend)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (param**2).sum()
        loss.backward()
        return loss.item()

    losses = [optimizer.step(closure) for _ in range(30)]
    assert losses[0] is not None
    assert losses[-1] is not None
    assert losses[-1] < 0.5 * losses[0]
    assert optimizer.step() is None


@every_backend
def test_scheduler_changes_the_step_size(backend: str) -> None:
    params = parameters((15,))
    optimizer, expected, rows = warm_up(backend, params, Hyper(lr=0.4))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
    for row, lr in zip(rows, (0.4, 0.04, 0.004), strict=True):
        take_step(optimizer, params, row)
        scheduler.step()
        expected.hypers = (Hyper(lr=lr),)
        expected.step(row)
    expected.check(optimizer, params)


@every_backend
def test_in_place_steps_are_seen_by_autograd(backend: str) -> None:
    """A graph that saved the parameter before the step must refuse to run backward after it."""
    (param,) = parameters((4,))
    loss = (param * param).sum()
    loss.backward(retain_graph=True)
    SONew([param], backend=backend).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_float64_on_auto_uses_the_reference_and_says_so() -> None:
    params = parameters((4,), dtype=torch.float64)
    optimizer = SONew(params)
    params[0].grad = torch.ones(4, dtype=torch.float64)
    with pytest.warns(SonewFallbackWarning, match=r"cpu cannot run \(param_dtype=float64"):
        optimizer.step()
    assert [plan.backend for plan in optimizer.plans()] == ["reference"]


@every_backend
def test_a_plan_is_made_once(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a new step size nor gradients that come, go and move cost a look-up; a tensor that joins does."""
    made: list[int] = []

    def counted(problem: Problem, **choices: Any) -> Plan:
        made.append(problem.total)
        return make_plan(problem, **choices)

    monkeypatch.setattr(planning, "make_plan", counted)
    params = parameters((6,), (2, 2), (3,))
    optimizer = SONew(params, backend=backend)
    rows = gradients(params[:2], band=1)
    take_step(optimizer, params, [*rows[0], None])
    for row in rows[1:4]:
        optimizer.param_groups[0]["lr"] *= 0.5
        take_step(optimizer, params, [row[0].clone(), None, None])
    take_step(optimizer, params, [*rows[4], None])
    assert made == [10]
    take_step(optimizer, params, [*rows[5], torch.ones(3)])
    assert made == [10, 13]


@every_backend
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_gradient_shows_in_its_whole_tensor(backend: str, value: float) -> None:
    """Grafting has no norm to go by, and no element may silently stay where it was; other tensors are stepped."""
    params = parameters((40,), (7,))
    optimizer = SONew(params, backend=backend)
    take_step(optimizer, params, [torch.full((40,), 1.0).index_fill(0, torch.tensor([20]), value), torch.ones(7)])
    assert params[0].isnan().all()
    assert params[1].isfinite().all()
