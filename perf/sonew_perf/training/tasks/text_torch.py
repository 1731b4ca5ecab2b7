"""A small language model over characters, in torch: GPT-2's shape."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from torch import nn

from sonew_perf.training.tasks.data import Data
from sonew_perf.training.tasks.text import CONTEXT

LAYERS: Final = 2
WIDTH: Final = 128
HEADS: Final = 4
SPREAD: Final = 0.02  # standard deviation of the first weights, GPT-2's
EVALUATED: Final = 256  # windows at once


class Block(nn.Module):
    """Attention to what came before, then a feed-forward part; each adds to what it is given, normalized."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.attention = nn.Linear(WIDTH, 3 * WIDTH)
        self.attention_out = nn.Linear(WIDTH, WIDTH)
        self.forward_norm = nn.LayerNorm(WIDTH)
        self.forward_in = nn.Linear(WIDTH, 4 * WIDTH)
        self.forward_out = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, characters, width) to the same."""
        batch, length, _ = x.shape
        mixed = self.attention(self.attention_norm(x)).view(batch, length, 3, HEADS, WIDTH // HEADS)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attention_out(seen.transpose(1, 2).reshape(batch, length, WIDTH))
        hidden = nn.functional.gelu(self.forward_in(self.forward_norm(x)), approximate="tanh")
        out: torch.Tensor = x + self.forward_out(hidden)
        return out


class CharacterModel(nn.Module):
    """Logits of the next character.

    The output is not tied to the embedding: with so few symbols that would save nothing, and so only the look-ups are embeddings, whose
    neighbours in memory have nothing to do with each other, while the output is a matrix like any other for SONew.

    Args:
        symbols: how many there are.
    """

    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.symbol = nn.Embedding(symbols, WIDTH)
        self.position = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.output = nn.Linear(WIDTH, symbols, bias=False)

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        """Characters int64 (batch, at most `CONTEXT`) to logits (batch, characters, symbols)."""
        x = self.symbol(characters) + self.position.weight[: characters.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits: torch.Tensor = self.output(self.norm(x))
        return logits


def build(seed: int, data: Data) -> nn.Module:
    """The model of a seed for the data's symbols, on the CPU, float32.

    As in GPT-2 matrices are normal, those that add to the residual stream smaller by sqrt(2 layers); biases are 0, scales 1.
    """
    model = CharacterModel(len(data.symbols))
    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for name, param in model.named_parameters():
            if param.ndim == 2:
                spread = SPREAD / math.sqrt(2 * LAYERS) if name.endswith("_out.weight") else SPREAD
                param.copy_(torch.from_numpy(generator.normal(0, spread, tuple(param.shape)).astype(np.float32)))
            elif name.endswith("bias"):
                param.zero_()
    return model


def pick(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """The chosen windows, int64 (batch, CONTEXT + 1): each begins where the one before it has its last character."""
    places = chosen[:, None] * CONTEXT + torch.arange(CONTEXT + 1, device=chosen.device)
    return values[places].to(torch.int64)


def loss(model: nn.Module, windows: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each character given those before it in its window, in nats; mean over windows (batch, characters + 1); float32."""
    logits = model(windows[:, :-1]).to(torch.float32)
    return nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


@torch.no_grad()
def evaluate(model: nn.Module, _values: torch.Tensor, held_out: torch.Tensor | None) -> float:
    """The mean loss over all windows of the held-out text."""
    assert held_out is not None  # noqa: S101  # a text has such a part
    windows = torch.arange((len(held_out) - 1) // CONTEXT, device=held_out.device)
    total = sum(loss(model, pick(held_out, part)).double() * len(part) for part in windows.split(EVALUATED))
    return float(total / len(windows))
