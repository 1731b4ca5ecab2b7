"""What a step is taken over. No framework is loaded here: the processes of both start with it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Final

Shapes = tuple[tuple[int, ...], ...]
LR: Final = 1e-6  # parameters stay where they are however often a case is called


@dataclass(frozen=True, slots=True)
class Workload:
    """The tensors that one step updates."""

    name: str
    shapes: Shapes

    @property
    def elements(self) -> int:
        """Elements of all tensors."""
        return sum(prod(shape) for shape in self.shapes)

    def described(self) -> dict[str, Any]:
        """As a record says it."""
        return {"name": self.name, "tensors": len(self.shapes), "elements": self.elements, "dtype": "float32"}


def one_tensor(size: int) -> Workload:
    """A single tensor of so many elements."""
    return Workload("one tensor", ((size,),))
