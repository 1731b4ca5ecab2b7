"""What one rank does with whole models: DDP, FSDP2, checkpoints, guards."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_loader import load as load_checkpoint
from torch.distributed.checkpoint.state_dict_saver import save as save_checkpoint
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from sonew.dispatch import make_plan
from sonew.errors import SonewError
from sonew.torch import SONew, planning
from sonew.torch.shards import local_of
from tests.distributed.ranks import cut, make_mesh, outcome
from tests.expected import gradients, parameters

SETTINGS: Any = {"lr": 3e-3, "band": 2, "weight_decay": 0.05, "eps": 1e-3}  # damped, so that rounding is not amplified from step to step


def make_model(seed: int = 0) -> torch.nn.Sequential:
    """A small model whose first dimensions divide by no number of ranks."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(6, 7), torch.nn.Tanh(), torch.nn.LayerNorm(7), torch.nn.Linear(7, 3))


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (12, 6) and targets (12, 3) of one step."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(12, 6, generator=generator)
    return inputs, inputs[:, :3].sin()


def learn(model: torch.nn.Module, optimizer: SONew, steps: Sequence[int], *, rank: int = 0, ranks: int = 1) -> list[float]:
    """Train on this rank's share of each batch; the loss is a mean, so that gradients averaged over ranks are the batch's."""
    losses = []
    for step in steps:
        optimizer.zero_grad()
        inputs, targets = (part[rank::ranks].to(next(model.parameters()).dtype) for part in batch(step))
        loss = (model(inputs) - targets).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def everything(model: torch.nn.Module, optimizer: SONew) -> dict[str, dict[str, np.ndarray]]:
    """Parameters and state in full, by name."""
    names, params = zip(*model.named_parameters(), strict=True)
    return dict(zip((name.removeprefix("module.") for name in names), outcome(optimizer, params), strict=True))


def sharded_model(*, hybrid: bool = False, dtype: str = "float32") -> torch.nn.Module:
    """The model under FSDP2: each linear layer and the rest; hybrid: sharded over the second of two mesh dimensions."""
    mesh = make_mesh((2, dist.get_world_size() // 2) if hybrid else (dist.get_world_size(),))
    model = make_model().to(getattr(torch, dtype))
    for layer in model:
        if isinstance(layer, torch.nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def fsdp2(*, steps: int, hybrid: bool = False, **settings: Any) -> dict[str, dict[str, np.ndarray]]:
    """Train under FSDP2."""
    model = sharded_model(hybrid=hybrid)
    optimizer = SONew(model.parameters(), **SETTINGS | settings)
    learn(model, optimizer, range(steps), rank=dist.get_rank(), ranks=dist.get_world_size())
    return everything(model, optimizer)


def ddp(*, steps: int, **settings: Any) -> dict[str, dict[str, np.ndarray]]:
    """Train under DDP."""
    model = DistributedDataParallel(make_model())
    optimizer = SONew(model.parameters(), **SETTINGS | settings)
    learn(model, optimizer, range(steps), rank=dist.get_rank(), ranks=dist.get_world_size())
    return everything(model, optimizer)


def save(*, folder: str, steps: int, **settings: Any) -> dict[str, dict[str, np.ndarray]]:
    """Train under FSDP2 and save the model and the optimizer."""
    model = sharded_model()
    optimizer = SONew(model.parameters(), **SETTINGS | settings)
    learn(model, optimizer, range(steps), rank=dist.get_rank(), ranks=dist.get_world_size())
    saved = {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, optimizer)}
    save_checkpoint(saved, checkpoint_id=folder)
    return everything(model, optimizer)


def load(
    *, folder: str, steps: Sequence[int], **settings: Any
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, dict[str, np.ndarray]]]:
    """Load under FSDP2 on this number of ranks, and go on: (what was loaded, what came of it)."""
    model = sharded_model()
    optimizer = SONew(model.parameters(), **SETTINGS | {"lr": 123.0} | settings)
    found = {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, optimizer)}
    load_checkpoint(found, checkpoint_id=folder)
    model.load_state_dict(found["model"])
    set_optimizer_state_dict(model, optimizer, found["optimizer"])
    loaded = everything(model, optimizer)
    learn(model, optimizer, steps, rank=dist.get_rank(), ranks=dist.get_world_size())
    return loaded, everything(model, optimizer)


def poisoned(*, where: int, how: str) -> tuple[bool, int, bool]:
    """A NaN on one rank alone: (nothing moved in the poisoned step, steps skipped, a clean step moved something)."""
    mesh = make_mesh((dist.get_world_size(),))
    full = parameters((7, 5), (9,))
    params = [torch.nn.Parameter(cut(param.detach(), mesh, ["s0"])) for param in full]
    optimizer = SONew(params, lr=0.1, skip_nonfinite=how == "guard", backend="cpu")
    rows = gradients(full, band=1)

    def step(row: Sequence[torch.Tensor], *, poison: bool) -> list[dict[str, np.ndarray]]:
        for param, grad in zip(params, row, strict=True):
            param.grad = cut(grad, mesh, ["s0"])
        bad = poison and dist.get_rank() == where
        if bad:
            params[0].grad._local_tensor.view(-1)[0] = float("nan")  # type: ignore[union-attr]
        optimizer.found_inf = torch.tensor(float(bad)) if how == "found_inf" else None  # type: ignore[attr-defined]
        total = torch.nn.utils.get_total_norm([param.grad for param in params if param.grad is not None])
        optimizer.step(total_norm=total if how == "total_norm" else None)
        return outcome(optimizer, params)

    before = step(rows[0], poison=False)
    skipped = step(rows[1], poison=True)
    after = step(rows[2], poison=False)
    same = [all(np.array_equal(one[name], other[name]) for name in one) for one, other in zip(before, skipped, strict=True)]
    return all(same), optimizer.read_counters().skipped, not np.array_equal(skipped[0]["param"], after[0]["param"])


def planned_once(*, backend: str) -> tuple[int, str, str]:
    """Which plans this rank made: (how many, their provenance, an error of the rank that planned)."""
    made = []

    def counted(problem: Any, **choices: Any) -> Any:
        made.append(problem)
        return make_plan(problem, **choices)

    model = DistributedDataParallel(make_model())
    optimizer = SONew(model.parameters(), **SETTINGS, backend=backend)
    with mock.patch.object(planning, "make_plan", counted):
        try:
            plans = optimizer.prepare()
        except SonewError as error:
            return len(made), "", str(error)
    return len(made), plans[0].provenance, ""


def refused(*, case: str) -> str:
    """The message with which a layout is refused, on every rank alike."""
    mesh = make_mesh((dist.get_world_size(),))
    cases: dict[str, Callable[[], Any]] = {
        "whole gradient": lambda: _with(["s0"], mesh, grad=torch.ones(4, 6)),
        "whole parameter": lambda: _with(None, mesh, grad=cut(torch.ones(4, 6), mesh, ["s0"])),
        "state cut otherwise": lambda: _with(["s0"], mesh, momentum=cut(torch.ones(4, 6), mesh, ["s1"])),
        "shard 1": lambda: SONew([torch.nn.Parameter(cut(torch.ones(4, 6), mesh, ["s1"]))], band=1),
        "shard 1, stochastic": lambda: SONew([torch.nn.Parameter(cut(torch.ones(4, 6), mesh, ["s1"]))], band=0, state_dtype="bfloat16"),
        "fsdp1": _fsdp1,
        "fsdp1, original parameters": lambda: _fsdp1(use_orig_params=True),
    }
    try:
        optimizer = cases[case]()
        optimizer.prepare()
        optimizer.step()
    except SonewError as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


def _with(kinds: Any, mesh: Any, *, grad: torch.Tensor | None = None, momentum: torch.Tensor | None = None) -> SONew:
    """An optimizer that took a good step, and then got another gradient or another momentum."""
    param = torch.nn.Parameter(cut(torch.ones(4, 6), mesh, kinds) if kinds else torch.ones(4, 6))
    optimizer = SONew([param], backend="cpu")
    param.grad = torch.ones_like(param)
    optimizer.step()
    if grad is not None:
        param.grad = grad
    if momentum is not None:
        optimizer.state[param]["momentum"] = momentum
    return optimizer


def _fsdp1(*, use_orig_params: bool = False) -> SONew:
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = FullyShardedDataParallel(make_model(), use_orig_params=use_orig_params, device_id=torch.device("cpu"))
    return SONew(model.parameters())


def counters() -> list[tuple[int, int, float]]:
    """Columns, fallen columns and |u| of each sharded tensor after some steps that make columns fall."""
    mesh = make_mesh((dist.get_world_size(),))
    full = parameters((7, 5), (40,))
    params = [torch.nn.Parameter(cut(param.detach(), mesh, ["s0"])) for param in full]
    optimizer = SONew(params, lr=0.1, gamma=0.9, counters=True, backend=os.environ.get("CASE_BACKEND", "cpu"))
    for row in gradients(full, band=1)[:4]:
        for param, grad in zip(params, row, strict=True):
            param.grad = cut(grad, mesh, ["s0"])
        optimizer.step()
    return [(t.columns, t.fallen, t.direction) for t in optimizer.read_counters().tensors]


def full_state(
    *, steps: int, broadcast: bool, dtype: str, **settings: Any
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, dict[str, np.ndarray]], list[str]]:
    """A full state dict, as one process would save it, handed to a fresh sharded optimizer: (before, after, kinds of tensors handed)."""
    model = sharded_model(dtype=dtype)
    optimizer = SONew(model.parameters(), **SETTINGS | settings)
    learn(model, optimizer, range(steps), rank=dist.get_rank(), ranks=dist.get_world_size())
    options = StateDictOptions(full_state_dict=True)
    state = get_optimizer_state_dict(model, optimizer, options=options)
    kinds = sorted({type(value).__name__ for held in state["state"].values() for value in held.values()})  # type: ignore[union-attr]
    optimizer.zero_grad()  # torch's helper makes the state to load into by a step with zero gradients, unless there are gradients
    fresh = SONew(model.parameters(), **SETTINGS | {"lr": 123.0} | settings)
    set_optimizer_state_dict(
        model,
        fresh,
        state if not broadcast or dist.get_rank() == 0 else {},
        options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=broadcast),
    )
    return everything(model, optimizer), everything(model, fresh), kinds


def scaled(*, where: int) -> tuple[bool, int, bool, float]:
    """FSDP2 under a GradScaler, an overflow on one rank: (nothing moved, skips, the next step moves, the scale afterwards)."""
    model = sharded_model()
    optimizer = SONew(model.parameters(), **SETTINGS, backend="cpu")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    def step(number: int, *, overflow: bool) -> dict[str, dict[str, np.ndarray]]:
        optimizer.zero_grad()
        inputs, targets = batch(number)
        loss = (model(inputs) - targets).square().mean()
        scaler.scale(loss).backward()
        if overflow and dist.get_rank() == where:
            next(param for param in model.parameters()).grad._local_tensor.view(-1)[0] = float("inf")  # type: ignore[union-attr]
        scaler.step(optimizer)
        scaler.update()
        return everything(model, optimizer)

    before, skipped, after = step(0, overflow=False), step(1, overflow=True), step(2, overflow=False)
    same = all(np.array_equal(before[name][what], skipped[name][what]) for name in before for what in before[name])
    moved = not np.array_equal(skipped["0.weight"]["param"], after["0.weight"]["param"])
    return same, optimizer.read_counters().skipped, moved, scaler.get_scale()


def moved() -> tuple[list[dict[str, np.ndarray]], list[dict[str, np.ndarray]], bool]:
    """State that is offloaded and brought back under the same tensors: (steps with, steps without, whether autograd saw the steps)."""
    mesh = make_mesh((dist.get_world_size(),))
    full = parameters((7, 5), (9,))
    outcomes = []
    for move in (True, False):
        params = [torch.nn.Parameter(cut(param.detach(), mesh, ["s0"])) for param in full]
        optimizer = SONew(params, lr=0.1, band=2, graft="none", eps=1e-3, backend="cpu")
        kept = []
        for row in gradients(full, band=2)[:4]:
            before = (params[0] * params[0]).sum()
            for param, grad in zip(params, row, strict=True):
                param.grad = cut(grad, mesh, ["s0"])
                for value in optimizer.state[param].values() if move else ():
                    local = local_of(value)
                    kept.append(local.data)
                    local.data = local.data.clone()
                    kept[-1].fill_(-1)
            optimizer.step()
            try:
                before.backward()
                seen = False
            except RuntimeError as error:
                seen = "modified by an inplace operation" in str(error)
        outcomes.append(outcome(optimizer, params))
    return outcomes[0], outcomes[1], seen
