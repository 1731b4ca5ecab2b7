"""The autoencoder in torch."""

from __future__ import annotations

from typing import Final

import torch
from torch import nn

from sonew_perf.training.tasks import autoencoder
from sonew_perf.training.tasks.data import Data

EVALUATED: Final = 10_000  # images at once


def build(seed: int, _data: Data) -> nn.Module:
    """The model of a seed, on the CPU; tanh everywhere but on the code and the logits."""
    layers: list[nn.Module] = []
    drawn = autoencoder.weights(seed)
    for weight, bias in zip(drawn[::2], drawn[1::2], strict=True):
        outputs, inputs = weight.shape
        linear: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight))
            linear.bias.copy_(torch.from_numpy(bias))
        layers += [linear] if outputs == autoencoder.CODE_WIDTH else [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def pick(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """The chosen images, float32 (batch, 784) in [0, 1]."""
    return values[chosen].to(torch.float32).div_(255)


def loss(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Sigmoid cross-entropy of images (batch, 784) in [0, 1], summed over the pixels, mean over the batch; float32.

    A bfloat16 model sees bfloat16 images; its logits are compared in float32.
    """
    logits = model(images.to(next(model.parameters()).dtype)).to(torch.float32)
    return nn.functional.binary_cross_entropy_with_logits(logits, images, reduction="sum") / images.shape[0]


@torch.no_grad()
def evaluate(model: nn.Module, values: torch.Tensor, _held_out: torch.Tensor | None) -> float:
    """The loss over all training images, what the paper reports."""
    parts = values.split(EVALUATED)
    total = sum(loss(model, part.to(torch.float32).div_(255)).double() * len(part) for part in parts)
    return float(total / len(values))
