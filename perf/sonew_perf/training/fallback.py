"""How many columns of the preconditioner fall back, layer by layer over a run: the optimizer's own counters, read now and then."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sonew.torch import SONew


class LayerFallback:
    """Shares of columns that fell back since the last look.

    Args:
        model: names the layers. optimizer: made with `counters=True`, over the model's parameters.
    """

    def __init__(self, model: nn.Module, optimizer: SONew) -> None:
        names: dict[torch.Tensor, str] = {param: name for name, param in model.named_parameters()}
        self._optimizer = optimizer
        self._names = {(g, at): names[param] for g, group in enumerate(optimizer.param_groups) for at, param in enumerate(group["params"])}
        self._seen = dict.fromkeys(self._names, (0, 0))
        self._shares: dict[str, list[float]] = {name: [] for name in self._names.values()}

    def note(self) -> None:
        """Look; waits for the device."""
        for layer in self._optimizer.read_counters().tensors:
            place = (layer.group, layer.position)
            fallen, steps = self._seen[place]
            columns = layer.columns * (layer.counted - steps)
            self._shares[self._names[place]].append(round((layer.fallen - fallen) / columns, 8) if columns else 0.0)
            self._seen[place] = (layer.fallen, layer.counted)

    def read(self) -> dict[str, Any]:
        """`layers`: per parameter's name the share of its columns that fell back, one for each look."""
        return {"layers": dict(self._shares)}
