"""Kernels that move more than they should. Their loads are volatile, because the compiler merges equal loads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.kernels.interpreter.mutants import Fault

FAULTS: Final[Mapping[str, tuple[str, str, Fault]]] = {
    "each momentum twice": (
        "direction",
        "momentum",
        Fault(
            "window",
            "old_momentum = old_momentum + (tl.load(where, mask=mask, other=0.0).to(tl.float32),)",
            "again = tl.load(where, mask=mask, other=0.0, volatile=True).to(tl.float32)\n"
            "            old_momentum = old_momentum + (tl.load(where, mask=mask, other=0.0).to(tl.float32) + again * 0.0,)",
        ),
    ),
    "the next gradient too": (
        "direction",
        "grad",
        Fault(
            "window",
            "    return g * gain\n",
            "    mask &= element + 1 < length\n"
            "    return g + tl.load(grad + element + 1, mask=mask, other=0.0, volatile=True).to(tl.float32) * 0.0\n",
        ),
    ),
    "each parameter twice": (
        "update",
        "param",
        Fault(
            "update",
            "    grafted = (u * scale) * scale\n",
            "    p += tl.load(param + element, mask=element < length, other=0.0, volatile=True).to(tl.float32) * 0.0\n"
            "    grafted = (u * scale) * scale\n",
        ),
    ),
}
"""Name -> (the kernel that is changed, the array it reads more of, the fault)."""
