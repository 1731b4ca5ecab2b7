"""Launches that play noise instead of measuring: recorded from two equal processes, or drawn; either side can be slowed down."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sonew_perf.compare.cases import Case
from sonew_perf.errors import MeasurementError, ProcessGoneError
from sonew_perf.steps.workloads import one_tensor

RECORDING = Path(__file__).with_name("recordings") / "equals-cpu.json"
Both = tuple[list[float], list[float]]  # samples of two equal processes, two of each per round


def case(name: str = "one") -> Case:
    """A case; the length tells names apart."""
    return Case(framework="torch", workload=one_tensor(1000 + len(name)), band=1)


@dataclass(slots=True)
class Played:
    """A launch whose samples come from a list.

    Attributes:
        samples: per case and side. slower: factor of the head's, per case; 1 where it is not named.
        broken: cases that cannot be built. deadly: cases whose first sample ends the process, and every request after it.
    """

    samples: Mapping[str, tuple[list[float], list[float]]]
    slower: Mapping[str, float] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()
    deadly: frozenset[str] = frozenset()
    gone: bool = False

    def prepare(self, wanted: Case) -> tuple[int, list[dict[str, Any]]]:
        if wanted.name in self.broken:
            msg = "no such kernel"
            raise MeasurementError(msg)
        return 1, [{"plans": []}, {"plans": []}]

    def renew(self, case: str) -> None:
        pass

    def sample(self, name: str, side: int, calls: int) -> float:
        assert calls == 1
        self.gone |= name in self.deadly
        if self.gone:
            msg = "its process ended with status -9"
            raise ProcessGoneError(msg)
        return self.samples[name][side].pop(0) * (self.slower.get(name, 1.0) if side else 1.0)

    def entered(self) -> AbstractContextManager[Played]:
        return nullcontext(self)


def drawn(rng: np.random.Generator, names: Sequence[str], rounds: int, *, scatter: float, launch: float = 0.0) -> dict[str, Both]:
    """Samples of equals that scatter by so much, each process of the launch off by an amount of its own."""

    def process() -> list[float]:
        return [float(value) for value in np.exp(rng.normal(rng.normal(0, launch), scatter, 2 * rounds))]

    return {name: (process(), process()) for name in names}


def recorded() -> list[dict[str, Both]]:
    """The recorded launches: per case the samples of both processes."""
    launches: list[dict[str, Both]] = json.loads(RECORDING.read_text(encoding="utf-8"))["launches"]
    return launches
