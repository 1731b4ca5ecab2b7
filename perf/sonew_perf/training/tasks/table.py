"""The tasks by name. A task is a row here and a module beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import nn

from sonew_perf.training.tasks import autoencoder, autoencoder_torch, text, text_torch
from sonew_perf.training.tasks.data import Data


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is trained, in torch.

    Attributes:
        title: for tables. loss_name: what the loss is.
        batch: examples per step. epochs: of a whole run. lr_rule: of `schedule.RULES`.
        means: how many mean losses a record keeps of an epoch.
        load: the data in a folder or file that the user names (None: the task's own, or an error).
        build: the model of (seed, data), on the CPU.
        pick: a batch of (all values on the device, indices of examples).
        loss: of (model, batch), a float32 scalar.
        evaluate: the result of a run of (model, all values, held-out values), both on the device.
        frameworks: that train it.
    """

    title: str
    loss_name: str
    batch: int
    epochs: int
    lr_rule: str
    means: int
    load: Callable[[Path | None], Data]
    build: Callable[[int, Data], nn.Module]
    pick: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    loss: Callable[[nn.Module, torch.Tensor], torch.Tensor]
    evaluate: Callable[[nn.Module, torch.Tensor, torch.Tensor | None], float]
    frameworks: tuple[str, ...] = ("torch",)


TASKS: Final[Mapping[str, Task]] = {
    "autoencoder": Task(
        title="MNIST autoencoder",
        loss_name="cross-entropy over the training images",
        batch=1000,
        epochs=100,
        lr_rule="epochs",
        means=1,
        load=autoencoder.load,
        build=autoencoder_torch.build,
        pick=autoencoder_torch.pick,
        loss=autoencoder_torch.loss,
        evaluate=autoencoder_torch.evaluate,
        frameworks=("torch", "jax"),
    ),
    "text": Task(
        title="language model over characters",
        loss_name="cross-entropy per character of the held-out text, nats",
        batch=32,
        epochs=5,
        lr_rule="steps",
        means=10,
        load=text.load,
        build=text_torch.build,
        pick=text_torch.pick,
        loss=text_torch.loss,
        evaluate=text_torch.evaluate,
    ),
}
