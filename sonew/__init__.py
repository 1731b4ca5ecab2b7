"""SONew: the Sparsified Online Newton optimizer with tuned kernels. Importing this package loads no framework.

Use `from sonew.torch import SONew` or `from sonew.jax import sonew` to train.
"""

from __future__ import annotations

from sonew.errors import (
    BackendUnavailableError,
    CaptureError,
    InvalidConfigError,
    SonewError,
    SonewFallbackWarning,
    UnsupportedProblemError,
)

__all__ = [
    "BackendUnavailableError",
    "CaptureError",
    "InvalidConfigError",
    "SonewError",
    "SonewFallbackWarning",
    "UnsupportedProblemError",
    "__version__",
]

__version__ = "0.1.0"
