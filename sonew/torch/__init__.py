"""SONew for PyTorch.

In short::

    from sonew.torch import SONew
    optimizer = SONew(model.parameters(), lr=1e-3)

The mathematics stands in `sonew.reference`, the state in `sonew.layout`; this package only keeps books.
"""

from __future__ import annotations

from sonew.torch.optimizer import SONew
from sonew.torch.policies import param_groups

__all__ = ["SONew", "param_groups"]
