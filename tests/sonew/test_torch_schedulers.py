"""Every scheduler of torch drives `SONew`: a float lr, a tensor lr filled in place, and the momentum that some of them cycle."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler, swa_utils
from torch.optim.lr_scheduler import LRScheduler

from sonew.config import Hyper
from sonew.torch import SONew
from tests.expected import Expected, gradients, parameters, take_step
from tests.sonew.torch_bits import every_backend
from tests.tolerances import assert_close

Make = Callable[[torch.optim.Optimizer], Any]
METRICS: Final = (1.0, 2.0, 3.0, 0.5, 0.6)  # two bad epochs, a good one, a bad one
SCHEDULERS: Final[dict[str, Make]] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, [lambda epoch: 0.9**epoch, lambda epoch: 1 / (1 + epoch)]),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda epoch: 0.5 + 0.1 * epoch),
    "StepLR": lambda o: lr_scheduler.StepLR(o, step_size=2, gamma=0.1),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, milestones=[1, 3], gamma=0.3),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, factor=0.25, total_iters=3),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=3),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, gamma=0.7),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, total_iters=4, power=2.0),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=4, eta_min=1e-3),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=2),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, base_lr=0.01, max_lr=0.2, step_size_up=2, base_momentum=0.5, max_momentum=0.9),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, max_lr=[0.4, 0.1], total_steps=5, base_momentum=0.6, max_momentum=0.95),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.3, patience=0),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, factor=0.1, total_iters=2), lr_scheduler.ExponentialLR(o, gamma=0.9)]
    ),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=2), lr_scheduler.StepLR(o, step_size=1, gamma=0.5)], milestones=[2]
    ),
    "SWALR": lambda o: swa_utils.SWALR(o, swa_lr=0.03, anneal_epochs=3),
}
CYCLES_MOMENTUM: Final = {"CyclicLR", "OneCycleLR"}
SHAPES: Final = ((6, 5), (7,))
RATES: Final = (0.1, 0.3)


def test_every_scheduler_of_torch_is_here() -> None:
    """A new one in torch is noticed."""
    kinds = {
        name
        for module in (lr_scheduler, swa_utils)
        for name, kind in vars(module).items()
        if inspect.isclass(kind) and issubclass(kind, LRScheduler) and kind is not LRScheduler and not name.startswith("_")
    }
    assert kinds | {"ReduceLROnPlateau"} == set(SCHEDULERS)


def seasoned(backend: str, *, tensor_lr: bool) -> tuple[SONew, list[torch.nn.Parameter], Expected, list[list[torch.Tensor]]]:
    """Two groups after a history with lr = 0, which leaves well-conditioned windows; the coming gradients."""
    params = parameters(*SHAPES)
    hypers = [Hyper(lr=0.0, weight_decay=0.1), Hyper(lr=0.0, band=2)]
    rates: list[Any] = [torch.tensor(0.0) if tensor_lr else 0.0 for _ in params]
    groups: list[dict[str, Any]] = [
        {"params": params[0], "lr": rates[0], "weight_decay": 0.1},
        {"params": params[1], "lr": rates[1], "band": 2},
    ]
    optimizer, expected = SONew(groups, backend=backend), Expected(params, *hypers)
    rows = gradients(params, band=2)
    for row in rows[5:]:
        take_step(optimizer, params, row)
        expected.step(row)
    for group, lr in zip(optimizer.param_groups, RATES, strict=True):
        if tensor_lr:
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
    return optimizer, params, expected, rows[:5]


@every_backend
@pytest.mark.parametrize("tensor_lr", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_drives_the_steps(name: str, tensor_lr: bool, backend: str) -> None:
    """Five steps with the rates and momenta that the same scheduler gives AdamW, against the reference."""
    optimizer, params, expected, rows = seasoned(backend, tensor_lr=tensor_lr)
    tensors = [group["lr"] for group in optimizer.param_groups]
    others = [{"params": param, "lr": lr} for param, lr in zip(parameters((1,), (1,)), RATES, strict=True)]
    guide = torch.optim.AdamW(others, betas=(0.9, 0.99))
    schedulers = [SCHEDULERS[name](each) for each in (optimizer, guide)]
    told = []
    for row, metric in zip(rows, METRICS, strict=True):
        now = [(float(group["lr"]), *group["betas"]) for group in guide.param_groups]
        expected.hypers = tuple(
            replace(hyper, lr=lr, beta1=beta1, beta2=beta2) for hyper, (lr, beta1, beta2) in zip(expected.hypers, now, strict=True)
        )
        told.append(now)
        take_step(optimizer, params, row)
        guide.step()
        expected.step(row)
        for scheduler in schedulers:
            scheduler.step(*([metric] if name == "ReduceLROnPlateau" else []))
    expected.check(optimizer, params)
    if tensor_lr:
        assert all(group["lr"] is lr for group, lr in zip(optimizer.param_groups, tensors, strict=True)), "filled in place"
    assert len({lr for (lr, _, _), _ in told}) > 1, "the rate never changes, so the test is blind"
    assert (len({beta1 for (_, beta1, _), _ in told}) > 1) == (name in CYCLES_MOMENTUM)


@every_backend
def test_a_scheduler_goes_on_after_a_checkpoint(backend: str) -> None:
    """Optimizer and scheduler saved after two steps and loaded into new ones: the bits of going on."""
    ends = []
    for stop in (None, 2):
        optimizer, params, _, rows = seasoned(backend, tensor_lr=False)
        scheduler = SCHEDULERS["OneCycleLR"](optimizer)
        for step, row in enumerate(rows):
            if step == stop:
                saved = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
                groups: list[dict[str, Any]] = [{"params": params[0]}, {"params": params[1], "band": 2}]
                optimizer = SONew(groups, backend=backend)
                scheduler = SCHEDULERS["OneCycleLR"](optimizer)
                scheduler.load_state_dict(saved[1])
                optimizer.load_state_dict(saved[0])
            take_step(optimizer, params, row)
            scheduler.step()
        ends.append([param.detach().clone() for param in params])
    assert all(torch.equal(straight, resumed) for straight, resumed in zip(*ends, strict=True))


@every_backend
def test_averaged_models(backend: str) -> None:
    """The running mean over steps is that of the reference's parameters, and the averaged model is no part of the optimizer."""
    optimizer, params, expected, rows = seasoned(backend, tensor_lr=False)
    model = torch.nn.ParameterList(params)
    averaged = swa_utils.AveragedModel(model)
    scheduler = swa_utils.SWALR(optimizer, swa_lr=0.05, anneal_epochs=2)
    seen: list[list[np.ndarray]] = []
    for row in rows:
        rates = [group["lr"] for group in optimizer.param_groups]
        expected.hypers = tuple(replace(hyper, lr=lr) for hyper, lr in zip(expected.hypers, rates, strict=True))
        take_step(optimizer, params, row)
        expected.step(row)
        averaged.update_parameters(model)
        scheduler.step()
        seen.append([param.astype(np.float64) for param in expected.params])
    for mean, *steps in zip(averaged.module.parameters(), *seen, strict=True):
        assert_close(mean, np.mean(steps, axis=0), "float32")
    assert len(optimizer.state) == len(params)
