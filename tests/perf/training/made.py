"""A task that trains in milliseconds, and runs of it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from torch import nn

from sonew_perf.training.methods import METHODS
from sonew_perf.training.runs import Run
from sonew_perf.training.settings import Settings
from sonew_perf.training.tasks.data import Data
from sonew_perf.training.tasks.table import Task

CPU: Final = torch.device("cpu")
EXAMPLES: Final = 22
WIDTH: Final = 6
DATA: Final = Data(
    name="ramps",
    sha256="0f",
    values=np.random.default_rng(1).integers(0, 256, (EXAMPLES, WIDTH)).astype(np.uint8),
    examples=EXAMPLES,
    held_out=np.full((3, WIDTH), 7, np.uint8),
)


def small_model(seed: int = 0) -> nn.Sequential:
    """53 parameters in four tensors: 6 to 5 to 3."""
    generator = np.random.default_rng(seed)
    model = nn.Sequential(nn.Linear(WIDTH, 5), nn.Tanh(), nn.Linear(5, 3))
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(torch.from_numpy(generator.normal(0, 0.5, tuple(param.shape))))
    return model


def pick(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    return values[chosen].to(torch.float32) / 255


def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = model(batch.to(next(model.parameters()).dtype))
    return (out.float() - 1).square().sum() / len(batch)


@torch.no_grad()
def evaluate(model: nn.Module, values: torch.Tensor, held_out: torch.Tensor | None) -> float:
    """The loss over all examples, a hundred times that of the held-out ones added: both must arrive."""
    assert held_out is not None
    everything, unseen = (pick(part, torch.arange(len(part))) for part in (values, held_out))
    return float(loss(model, everything) + 100 * loss(model, unseen))


TASK: Final = Task(
    title="three ones",
    loss_name="squares",
    batch=5,
    epochs=10,
    lr_rule="steps",
    means=2,
    load=lambda _path: DATA,
    build=lambda seed, _data: small_model(seed),
    pick=pick,
    loss=loss,
    evaluate=evaluate,
)


def make_run(method: str = "sonew", **changed: Any) -> Run:
    """A run of the small task as `sonew-perf train` would make it, with these fields changed; fields of `Settings` too."""
    names = {"task", "framework", "precision", "lr_rule", "schedule_steps", "seed", "steps", "batch"}
    settings = Settings(**{"lr": 0.02, **{name: value for name, value in changed.items() if name not in names}})
    own = {name: value for name, value in changed.items() if name in names}
    row = METHODS[method]
    usual: dict[str, Any] = {
        "task": "small",
        "framework": "torch",
        "precision": "fp32",
        "lr_rule": "constant",
        "schedule_steps": 8,
        "seed": 0,
        "steps": 8,
        "batch": 5,
    }
    return Run(method=method, uses=row.uses, name=row.label, settings=settings, **usual | own)
