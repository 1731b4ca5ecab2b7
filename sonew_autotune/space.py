"""The search space of a kernel family on this machine, from its launch spec. `spec.rejects` is the only judge of validity."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sonew_kernels.spec import SPECS, Tunable

THREADS: Final = "threads"  # the one axis whose values depend on the machine; 0 stands for torch's own number
Config = Mapping[str, int]
Point = tuple[tuple[str, int], ...]


def point_of(config: Config) -> Point:
    """A configuration as a key."""
    return tuple(sorted(config.items()))


def available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Space:
    """The points that may be tried.

    Attributes:
        kernel: family in `sonew_kernels.spec.SPECS`.
        band: off-diagonals.
        axes: (name, values) in the spec's order, values that make sense here.
    """

    kernel: str
    band: int
    axes: tuple[tuple[str, tuple[int, ...]], ...]

    def rejects(self, config: Config) -> str | None:
        """The spec's reason against a configuration, or None."""
        return SPECS[self.kernel].rejects(config, self.band)

    def __contains__(self, config: Config) -> bool:
        return all(config.get(name) in values for name, values in self.axes) and self.rejects(config) is None

    @property
    def default(self) -> dict[str, int]:
        """The configuration that runs when nothing was tuned."""
        return SPECS[self.kernel].default(self.band)

    def points(self) -> list[dict[str, int]]:
        """Every valid configuration."""
        names = [name for name, _ in self.axes]
        product = (dict(zip(names, values, strict=True)) for values in itertools.product(*(values for _, values in self.axes)))
        return [config for config in product if self.rejects(config) is None]


def _values_here(tunable: Tunable, *, cores: int, threads: int) -> tuple[int, ...]:
    """Without thread counts that the machine lacks, or that 0 (torch's own number) already stands for."""
    if tunable.name != THREADS:
        return tunable.values
    return tuple(value for value in tunable.values if value == 0 or (value <= cores and value != threads))


def build_space(kernel: str, band: int, *, threads: int, cores: int | None = None) -> Space:
    """The space of a family for a band.

    Args:
        kernel: family in `sonew_kernels.spec.SPECS`.
        band: off-diagonals.
        threads: what torch uses by default; 0 on a GPU.
        cores: cores that may be used; those of this process where None.
    """
    usable = available_cores() if cores is None else cores
    axes = tuple((tunable.name, _values_here(tunable, cores=usable, threads=threads)) for tunable in SPECS[kernel].tunables)
    return Space(kernel, band, axes)
