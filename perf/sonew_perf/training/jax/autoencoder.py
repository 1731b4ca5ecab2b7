"""The autoencoder in JAX: weights (out, in) as torch has them, so that SONew's chains run through them in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import jax
import jax.numpy as jnp
from jax import lax

EVALUATED: Final = 10_000  # images at once
Params = Sequence[jax.Array]


def logits_of(params: Params, images: jax.Array) -> jax.Array:
    """Logits of images (batch, 784), in the parameters' type; tanh everywhere but on the code and the logits.

    Args:
        params: weight (out, in) and bias (out,), layer by layer.
        images: in the parameters' type.
    """
    layers = list(zip(params[::2], params[1::2], strict=True))
    code = min(bias.size for bias in params[1::2])
    values = images
    for number, (weight, bias) in enumerate(layers):
        values = jnp.matmul(values, weight.T, precision=lax.Precision.HIGHEST) + bias  # else a GPU rounds float32 to TF32
        if bias.size != code and number < len(layers) - 1:
            values = jnp.tanh(values)
    return values


def loss(params: Params, pixels: jax.Array) -> jax.Array:
    """Sigmoid cross-entropy of images uint8 (batch, 784), summed over the pixels, mean over the batch; float32.

    bfloat16 parameters see bfloat16 images; their logits are compared in float32.
    """
    images = pixels.astype(jnp.float32) / 255
    logits = logits_of(params, images.astype(params[0].dtype)).astype(jnp.float32)
    return jnp.sum(jax.nn.softplus(logits) - logits * images) / pixels.shape[0]


def evaluate(params: Params, values: jax.Array) -> float:
    """The loss over all training images uint8 (images, 784), what the paper reports."""
    of_part = jax.jit(loss)
    parts = [values[start : start + EVALUATED] for start in range(0, len(values), EVALUATED)]
    return sum(float(of_part(params, part)) * len(part) for part in parts) / len(values)
