"""The paper's benchmark model: the MNIST autoencoder 784-1000-500-250-30-250-500-1000-784 (SONew, section 5)."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import torch
from torch import nn

WIDTHS: Final = (784, 1000, 500, 250, 30, 250, 500, 1000, 784)
CODE_WIDTH: Final = min(WIDTHS)


def parameter_shapes() -> list[tuple[int, ...]]:
    """Shapes of the 16 tensors in the model's order: weight (out, in), bias (out,), layer by layer."""
    return [shape for inputs, outputs in pairwise(WIDTHS) for shape in ((outputs, inputs), (outputs,))]


def build(seed: int, device: torch.device) -> nn.Sequential:
    """The model with glorot-uniform weights and zero biases; tanh everywhere but on the code and the logits.

    The weights depend on the seed alone: they are drawn on the CPU whatever the device.
    """
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(WIDTHS):
        linear: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
        nn.init.xavier_uniform_(linear.weight, generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [linear] if outputs == CODE_WIDTH else [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1]).to(device)


def loss(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Sigmoid cross-entropy of images (batch, 784) in [0, 1], summed over the pixels, mean over the batch."""
    logits = model(images)
    return nn.functional.binary_cross_entropy_with_logits(logits, images, reduction="sum") / images.shape[0]
