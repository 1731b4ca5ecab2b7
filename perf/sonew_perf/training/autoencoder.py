"""The paper's benchmark model, the MNIST autoencoder (SONew, section 5): the tensors of `problems.MODELS`, with weights and a loss."""

from __future__ import annotations

from typing import Final

import torch
from torch import nn

from sonew_autotune.problems import MODELS

SHAPES: Final = MODELS["mnist-autoencoder"]  # weight (out, in), bias (out,), layer by layer
PIXELS: Final = SHAPES[0][1]
CODE_WIDTH: Final = min(outputs for outputs, *_ in SHAPES)


def build(seed: int, device: torch.device) -> nn.Sequential:
    """The model with glorot-uniform weights and zero biases; tanh everywhere but on the code and the logits.

    The weights depend on the seed alone: they are drawn on the CPU whatever the device.
    """
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for outputs, inputs in SHAPES[::2]:
        linear: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
        nn.init.xavier_uniform_(linear.weight, generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [linear] if outputs == CODE_WIDTH else [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1]).to(device)


def loss(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Sigmoid cross-entropy of images (batch, 784) in [0, 1], summed over the pixels, mean over the batch."""
    logits = model(images)
    return nn.functional.binary_cross_entropy_with_logits(logits, images, reduction="sum") / images.shape[0]
