"""Made-up recordings: a cost per configuration, with noise that repeats."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from sonew_autotune.problems import Case
from sonew_autotune.trials.landscape import Landscape, LandscapeRecord
from sonew_autotune.trials.outcome import Failure
from sonew_kernels.spec import SPECS
from tests.autotune.entries import entry

Cost = Callable[[Mapping[str, int]], float | Failure]


def made_up(cost: Cost, points: list[dict[str, int]], *, kernel: str = "cpu", name: str = "made-up", noise: float = 0.01) -> Landscape:
    """A recording in which each point took `cost` milliseconds, give or take the noise, in five rounds."""
    default = SPECS[kernel].default(1)
    spread = random.Random(0)
    records = []
    for point in points:
        value = cost(point)
        if isinstance(value, Failure):
            records.append(LandscapeRecord(config=point, failure=value))
            continue
        base = cost(default)
        assert isinstance(base, float)
        times, defaults = (tuple(ms * spread.uniform(1 - noise, 1 + noise) for _ in range(5)) for ms in (value, base))
        records.append(LandscapeRecord(config=point, times_ms=times, default_ms=defaults, copy_ms=(0.05,) * 5))
    case = Case(name=name, shapes=((5000,),), device="cpu" if kernel == "cpu" else "cuda", band=1)
    key = entry(kernel=kernel).key
    return Landscape(key=key, case=case, default=default, records=tuple(records), versions={"torch": "2.13.0"}, date="2026-01-01T00:00:00Z")
