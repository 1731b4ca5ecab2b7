"""The one table of backends, named as strings so that reading it imports none. Order is preference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class BackendRow:
    """A backend.

    Attributes:
        name: what users pass as `backend=`.
        framework: whose arrays it steps.
        module: the module that implements it, loaded on first use.
        device: the device type it is made for, "" where it serves every one.
    """

    name: str
    framework: str
    module: str
    device: str


BACKENDS: Final = (
    BackendRow("triton", "torch", "sonew.backends.triton_torch", "cuda"),
    BackendRow("cpu", "torch", "sonew.backends.cpu_torch", "cpu"),
    BackendRow("reference", "torch", "sonew.backends.reference_torch", ""),
    BackendRow("triton", "jax", "sonew.backends.triton_jax", "cuda"),
    BackendRow("reference", "jax", "sonew.backends.xla_jax", ""),
)


def backend_names(framework: str = "torch") -> tuple[str, ...]:
    """Names a user of the framework may ask for, "auto" first."""
    return ("auto", *(row.name for row in BACKENDS if row.framework == framework))
