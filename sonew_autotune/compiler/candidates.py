"""The candidates of a problem for a GPU that is not here: pruned or ranked by the static model, and the entry that is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Final

from sonew import tuned
from sonew.config import LaunchConfig
from sonew.registry import BACKENDS
from sonew_autotune.compiler.kernel import Compiled, Dtypes
from sonew_autotune.compiler.model import MODEL, MODEL_ERROR, RANKED, prune_reason, static_rank
from sonew_autotune.compiler.resources import Resources
from sonew_autotune.compiler.targets import doubted
from sonew_autotune.problems import Case
from sonew_autotune.space import Space
from sonew_autotune.store.evidence import now, versions
from sonew_autotune.trials.outcome import Failure
from sonew_kernels.spec import source_hash

KERNEL: Final = "triton"

Part = tuple[str, tuple[int, ...]]
Outcome = Compiled | Failure


def dtypes_of(case: Case) -> Dtypes:
    """The storage types of a case."""
    return Dtypes(case.param_dtype, case.grad_dtype, case.state_dtype, case.direction_dtype)


def part_of(kernel: str, config: Mapping[str, int]) -> Part:
    """A ranked kernel with its own tunables: configurations that agree here share its machine code."""
    return kernel, tuple(config[name] for name in RANKED[kernel])


def distance(config: Mapping[str, int], space: Space, names: tuple[str, ...] | None = None) -> int:
    """Steps along the axes from the default to a configuration, on the named axes only where given."""
    axes = {name: values for name, values in space.axes if names is None or name in names}
    return sum(abs(values.index(config[name]) - values.index(space.default[name])) for name, values in axes.items())


def parts(space: Space) -> dict[Part, dict[str, int]]:
    """Every different kernel of the space with a configuration that has it; the nearer to the default, the earlier."""
    found: dict[Part, dict[str, int]] = {}
    for config in (space.default, *space.points()):
        for kernel in RANKED:
            found.setdefault(part_of(kernel, config), config)
    return dict(sorted(found.items(), key=lambda item: distance(item[1], space, RANKED[item[0][0]])))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A candidate that compiled and was not pruned.

    Attributes:
        score: the model's clocks per element. doubted: the same with each of the numbers that are in doubt changed (`targets.doubted`).
        resources: what its kernels take.
    """

    config: dict[str, int]
    score: float
    doubted: tuple[float, ...]
    resources: Mapping[str, Resources]

    def over(self, other: Ranked) -> float:
        """The ratio of its score to another's that is certain: the largest of all."""
        return max(own / its for own, its in zip((self.score, *self.doubted), (other.score, *other.doubted), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """A kernel whose resources speak against it, whatever the other one is; `resources` are what it takes."""

    kernel: str
    config: dict[str, int]
    reason: str
    resources: Resources


def prune(outcomes: Mapping[Part, Outcome]) -> tuple[Pruned, ...]:
    """The compiled kernels that the model rules out."""

    def judged() -> Iterator[Pruned]:
        for (kernel, values), outcome in outcomes.items():
            if isinstance(outcome, Compiled) and (reason := prune_reason(outcome.resources, outcome.target)):
                config = dict(zip(RANKED[kernel], values, strict=True))
                yield Pruned(kernel=kernel, config=config, reason=reason, resources=outcome.resources)

    return tuple(judged())


def rank(space: Space, outcomes: Mapping[Part, Outcome], dtypes: Dtypes) -> tuple[Ranked, ...]:
    """Every configuration whose kernels all compiled and stayed, best first; of equals for the model, the nearer to the default."""
    out = {part_of(pruned.kernel, pruned.config) for pruned in prune(outcomes)}
    usable = {part: outcome for part, outcome in outcomes.items() if isinstance(outcome, Compiled) and part not in out}
    ranked = []
    for config in space.points():
        compiled = {kernel: usable[part] for kernel in RANKED if (part := part_of(kernel, config)) in usable}
        if len(compiled) == len(RANKED):
            target = compiled["direction"].target
            score, *others = (static_rank(compiled, config, space.band, dtypes, chip) for chip in (None, *doubted(target)))
            resources = {kernel: built.resources for kernel, built in compiled.items()}
            ranked.append(Ranked(config=config, score=score, doubted=tuple(others), resources=resources))
    return tuple(sorted(ranked, key=lambda candidate: (float(f"{candidate.score:.3g}"), distance(candidate.config, space))))


def choose(ranked: Sequence[Ranked], default: Ranked) -> Ranked:
    """The first, if it is certainly ahead of the default by more than the model's error, else the default."""
    return ranked[0] if ranked[0].over(default) <= 1 - MODEL_ERROR else default


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticResult:
    """What compiling told of one problem.

    Attributes:
        ranked: candidates, best first. pruned: kernels that were ruled out. failures: those that did not compile.
        left_out: kernels that were not compiled, as the budget ended.
        default: None if it failed or was ruled out or left out; then nothing is stored. entry: what is stored.
    """

    case: Case
    ranked: tuple[Ranked, ...]
    pruned: tuple[Pruned, ...]
    failures: tuple[tuple[Part, Failure], ...]
    left_out: int
    default: Ranked | None
    entry: tuned.Entry | None


def environment(target: str) -> dict[str, str | int]:
    """The key fields of a device that is not here: its capability, and this machine's compiler."""
    module = import_module(next(row.module for row in BACKENDS if row.name == KERNEL))
    toolchain = module.environment()["toolchain"]
    return {"device": tuned.ANY_DEVICE, "capability": target, "threads": 0, "toolchain": toolchain}


def _taken(candidate: Ranked) -> dict[str, str]:
    """What its kernels take, in words: evidence is for people, and shipped stores are small."""

    def words(used: Resources) -> str:
        spilled = used.spill_store_bytes + used.spill_load_bytes
        counts = f"{used.registers} registers, {spilled} spill bytes, {used.shared_bytes} shared bytes, {used.instructions} instructions"
        return f"{counts}, occupancy {used.occupancy:.0%}"

    return {kernel: words(used) for kernel, used in candidate.resources.items()}


def judge(case: Case, target: str, outcomes: Mapping[Part, Outcome], space: Space) -> StaticResult:
    """Prune, rank and choose."""
    ranked, pruned = rank(space, outcomes, dtypes_of(case)), prune(outcomes)
    failures = tuple((part, outcome) for part, outcome in outcomes.items() if isinstance(outcome, Failure))
    default = next((candidate for candidate in ranked if candidate.config == space.default), None)
    result = StaticResult(
        case=case,
        ranked=ranked,
        pruned=pruned,
        failures=failures,
        left_out=len(parts(space)) - len(outcomes),
        default=default,
        entry=None,
    )
    return result if default is None else replace(result, entry=_entry(result, default, target))


def _entry(result: StaticResult, default: Ranked, target: str) -> tuned.Entry:
    first, best = result.ranked[0], choose(result.ranked, default)
    gained, ratio = best != default, round(best.score / default.score, 4)
    evidence: dict[str, Any] = {
        "result": "ranked first" if gained else "default kept",
        "model": MODEL,
        "score": round(best.score, 4),
        "ratio_to_default": {"median": ratio, "low": ratio, "high": round(best.over(default), 4)},
        "resources": _taken(best),
        "candidates": len(result.ranked),
        "pruned": len(result.pruned),
        "failed": len(result.failures),
        "left_out": result.left_out,
        "versions": {name: number for name, number in versions().items() if name in ("sonew", "triton")},
        "date": now(),
    }
    if gained:
        evidence["default_resources"] = _taken(default)
    elif first != default:
        evidence["challenger"] = {
            "config": first.config,
            "ratio_to_default": round(first.score / default.score, 4),
            "certain": round(first.over(default), 4),
        }
    key = tuned.make_key(result.case.problem, KERNEL, environment(target), source_hash(KERNEL))
    return tuned.Entry(key=key, kind="static", config=LaunchConfig.of(KERNEL, best.config), evidence=evidence)
