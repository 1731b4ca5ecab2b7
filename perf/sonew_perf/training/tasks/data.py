"""A task's data and the order in which a run sees it. No framework is loaded here: torch and JAX train on the same batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from sonew_perf.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What a model is trained on.

    Attributes:
        name: of the data, for tables. sha256: of its content; with the number of examples what a record quotes.
        values: the examples; images uint8 (examples, pixels), or a text as uint8 (characters,).
        examples: what an epoch shows once each. held_out: values that training never sees, or None.
        symbols: of a text, the characters in the order of their numbers.
    """

    name: str
    sha256: str
    values: np.ndarray
    examples: int
    held_out: np.ndarray | None = None
    symbols: str = ""

    def describe(self) -> dict[str, Any]:
        """As a record quotes it."""
        return {"name": self.name, "examples": self.examples, "sha256": self.sha256}


def steps_per_epoch(examples: int, batch: int) -> int:
    """Whole batches of an epoch; what is left over sits it out.

    Raises:
        DataError: fewer examples than a batch.
    """
    if not 1 <= batch <= examples:
        msg = f"batch={batch} is not allowed with {examples} examples: it must lie from 1 to their number. Pass --batch {examples} or less."
        raise DataError(msg)
    return examples // batch


def batches(examples: int, batch: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    """Indices of each step's examples, int64 (batch,): every epoch a new permutation, of the seed alone, cut into whole batches."""
    per_epoch = steps_per_epoch(examples, batch)
    order = np.empty(0, np.int64)
    for step in range(steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0:
            order = np.random.default_rng((seed, epoch)).permutation(examples)
        yield order[place * batch : (place + 1) * batch]
