"""The speeds this project wants on an H100, as data, and how far a run's cases reach them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from sonew_autotune.measure import Samples, paired_ratio, unpaired_ratio
from sonew_perf.gpu.plan import BENCH_ELEMENTS, JAX_SIZES, bench_name, jax_name, jax_ours, model_name, ours
from sonew_perf.jax.request import TRITON, XLA
from sonew_perf.steps.peers import COMPILED, COPY, DIRECTION, EAGER, FUSED, GRAPH, Method

Verdict = Literal["stretch reached", "reached", "not reached", "not measured"]
Units = Mapping[str, Mapping[str, Any]]  # a timing's result by the unit's name
DEVICE: Final = "H100"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One speed.

    Attributes:
        what: in words.
        unit: the unit that measures it. case: its case.
        against: the case of the same run that it is compared with; `COPY`: its nominal bytes per second as a share of the copy's.
        reach, stretch: bounds; stretch None: there is only one.
        more: whether larger is better.
        against_unit: the unit of `against`, where it is another one of the same call: its rounds are others, so medians are compared.
    """

    what: str
    unit: str
    case: str
    against: str
    reach: float
    stretch: float | None
    more: bool = False
    against_unit: str = ""

    @property
    def share(self) -> bool:
        """Whether it is a share of the copy, printed in percent, or a multiple."""
        return self.against == COPY


@dataclass(frozen=True, slots=True)
class Row:
    """A target with what was measured, None where it was not; `low` and `high` bound the 95 % interval."""

    target: Target
    median: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def verdict(self) -> Verdict:
        """The median against the bounds."""
        if self.median is None:
            return "not measured"
        for bound, name in ((self.target.stretch, "stretch reached"), (self.target.reach, "reached")):
            if bound is not None and ((self.median >= bound) if self.target.more else (self.median <= bound)):
                return name  # type: ignore[return-value]  # the pairs above hold verdicts
        return "not reached"


def _direction(band: int, reach: float, stretch: float) -> Target:
    return Target(
        what=f"direction phase, 64 Mi fp32, band {band}: share of copy",
        unit=bench_name(BENCH_ELEMENTS, band),
        case=ours(band, "float32").case(DIRECTION),
        against=COPY,
        reach=reach,
        stretch=stretch,
        more=True,
    )


def _step(model: str, band: int, state: str, reach: float, stretch: float, *, split: bool = False) -> Target:
    return Target(
        what=f"{model}, band {band}, {state} state, graph: times fused AdamW",
        unit=model_name(model, band, state) if split else model_name(model),
        case=ours(band, state).case(GRAPH),
        against=Method(family=FUSED).case(GRAPH),
        reach=reach,
        stretch=stretch,
    )


TARGETS: Final = (
    *(_direction(band, 0.95, 0.98) for band in (1, 2, 3)),
    _direction(4, 0.92, 0.96),
    _direction(6, 0.84, 0.90),
    _direction(8, 0.70, 0.85),
    _step("gpt2-small", 1, "float32", 1.45, 1.40),
    _step("llama-1b", 1, "float32", 1.45, 1.40, split=True),
    _step("gpt2-small", 4, "float32", 2.35, 2.2),
    _step("llama-1b", 4, "float32", 2.35, 2.2, split=True),
    _step("gpt2-small", 1, "bfloat16", 1.05, 0.95),
    _step("llama-1b", 1, "bfloat16", 1.05, 0.95, split=True),
    Target(
        what="gpt2-small, band 1, eager wall time: times its own graph",
        unit=model_name("gpt2-small"),
        case=ours(1, "float32").case(EAGER),
        against=ours(1, "float32").case(GRAPH),
        reach=1.2,
        stretch=1.1,
    ),
    _step("mnist-autoencoder", 1, "float32", 1.8, 1.2),
    Target(
        what="64 Mi, band 1: times faster than torch.compile",
        unit=bench_name(BENCH_ELEMENTS),
        case=Method(family=COMPILED, band=1).case(EAGER),
        against=ours(1, "float32").case(EAGER),
        reach=2.5,
        stretch=2.8,
        more=True,
    ),
    Target(
        what="JAX, 64 Mi, band 1, jitted: times the torch path",
        unit=jax_name(BENCH_ELEMENTS),
        case=jax_ours(1, TRITON).case,
        against_unit=bench_name(BENCH_ELEMENTS, 1),
        against=ours(1, "float32").case(EAGER),
        reach=1.15,
        stretch=None,
    ),
    Target(
        what="JAX, 64 Mi, band 1: times faster than its XLA path",
        unit=jax_name(BENCH_ELEMENTS),
        case=jax_ours(1, XLA).case,
        against=jax_ours(1, TRITON).case,
        reach=2.1,
        stretch=None,
        more=True,
    ),
    *(
        Target(
            what=f"{jax_name(size)}, band 1: times its XLA path",
            unit=jax_name(size),
            case=jax_ours(1, TRITON).case,
            against=jax_ours(1, XLA).case,
            reach=1.05,
            stretch=None,
        )
        for size in JAX_SIZES
    ),
)


def judge(target: Target, units: Units) -> Row:
    """The target beside what a run measured."""
    own, other = (
        next((entry for entry in units.get(unit, {}).get("entries", ()) if entry["case"] == case), None)
        for unit, case in ((target.unit, target.case), (target.against_unit or target.unit, target.against))
    )
    if own is None or other is None:
        return Row(target)
    if target.share:
        share = own["copy_share"]
        return Row(target, share["median"], share["low"], share["high"])
    samples = [Samples(tuple(entry["samples_ms"])) for entry in (own, other)]
    ratio = unpaired_ratio(*samples) if target.against_unit else paired_ratio(*samples)
    return Row(target, round(ratio.median, 4), round(ratio.low, 4), round(ratio.high, 4))


def judge_all(units: Units) -> list[Row]:
    """Every target."""
    return [judge(target, units) for target in TARGETS]
