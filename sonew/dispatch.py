"""Dispatch: which backend steps a problem, with which configuration, and why. Plans are made once, never on the step path."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, Protocol, get_args, runtime_checkable

import sonew_kernels
from sonew import paths, tuned
from sonew.config import Hyper, LaunchConfig, Plan, Problem
from sonew.errors import BackendUnavailableError, InvalidConfigError, SonewFallbackWarning
from sonew.registry import BACKENDS, BackendRow, backend_names
from sonew_kernels.spec import SPECS, source_hash

Tuning = Literal["on", "off", "pinned"]
TUNING_MODES: Final[tuple[str, ...]] = get_args(Tuning)
Tensor = Any  # of the plan's framework, which is not loaded here
LAUNCH_GROUP_ELEMENTS: Final = 32 * 2**20  # bounds the direction buffer to 128 MiB, or to the largest tensor


class StepGroup(Protocol):
    """What a backend makes of one launch group: four phases, whose composition is `step`; sharded tensors need more between them."""

    def set_hyper(self, hyper: Hyper) -> None:
        """Settings for the coming steps."""

    def bind(self, grads: Sequence[Any]) -> None:
        """This step's gradients, None where a tensor has none."""

    def signal(self, grad_scale: Tensor, skip: Tensor) -> None:
        """This step's loss scale and whether it is skipped: one element each on any device, or None."""

    def prologue(self) -> None:
        """Counts, corrections, old edges."""

    def direction(self) -> None:
        """Accumulate, factor, apply: writes state, direction and partial norms."""

    def norms(self) -> None:
        """Reduce the partial norms in a fixed order."""

    def update(self) -> None:
        """Write the parameters."""

    def halo(self, i: int, side: int) -> tuple[Tensor, Tensor]:
        """Views to fill between `prologue` and `direction` with what lies beyond piece i's start (0) or end (1).

        Returns (old momentum and stats (band + 2, band), gradients (band,)).
        """

    def sums(self) -> Tensor:
        """After `direction`: sums of u^2 and a^2 per tensor, float64 (n, 2)."""

    def take_sums(self, sums: Tensor) -> None:
        """In place of `norms`: graft by sums over all pieces of each tensor."""

    def counted(self) -> Tensor:
        """After a step, float64 (n, 2): columns that fell back (where the group was made with `counted`), whether it was stepped."""


@runtime_checkable
class CapturableStepGroup(StepGroup, Protocol):
    """A step group whose launches read from device memory whatever changes between steps, so that a CUDA graph may hold them."""

    def set_hyper(self, hyper: Hyper, lr: Tensor = None) -> None:
        """Settings for the coming steps; a tensor `lr` (float32, one element, on the group's device) stands in for `hyper.lr`."""

    def prepare_capture(self) -> None:
        """Allocate what the next capture needs, where it is not there yet; outside captures only."""

    def capture_problem(self, hyper: Hyper, lr: Tensor, grads: Sequence[Any]) -> str | None:
        """Why a step with these settings and gradients cannot be captured now, with the fix, or None."""

    def capture(self, grads: Sequence[Any]) -> AbstractContextManager[None]:
        """In place of `bind`, around the phases that a CUDA graph records: it gets a table of its own."""


def step(group: StepGroup) -> None:
    """One step of a bound group: its phases in order."""
    group.prologue()
    group.direction()
    group.norms()
    group.update()


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A backend's verdict on a problem: `reason` is None when it can take it."""

    backend: str
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Everything that decided a plan.

    Attributes:
        plan: the plan that `make_plan` returns for the same arguments.
        candidates: every backend with its verdict, in order of preference.
        key: what was looked up in the stores, None where the backend has nothing to tune.
        verdicts: every stored entry of the kernel with the reasons against it.
        problems: what could not be read.
    """

    plan: Plan
    candidates: tuple[Candidate, ...]
    key: tuned.Key | None
    verdicts: tuple[tuned.Verdict, ...]
    problems: tuple[str, ...]


def _choice(name: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        msg = f"{name}={value!r} is not one of {list(allowed)}. Use {allowed[0]!r} to let the package decide."
        raise InvalidConfigError(msg)
    return value


def check_request(backend: str, tuning: str, framework: str = "torch") -> None:
    """Refuse unknown names.

    Raises:
        InvalidConfigError: with the allowed names.
    """
    _choice("tuning", tuning, TUNING_MODES)
    _choice("backend", backend, backend_names(framework))


def requested_backend(backend: str, framework: str = "torch") -> str:
    """The backend asked for: by argument, else by SONEW_BACKEND, else "auto". A backend of the other framework asks nothing of this one."""
    if backend != "auto":
        return backend
    names = dict.fromkeys(name for row in BACKENDS for name in backend_names(row.framework))
    asked = _choice("SONEW_BACKEND", os.environ.get("SONEW_BACKEND") or "auto", tuple(names))
    return asked if asked in backend_names(framework) else "auto"


def _rows(framework: str) -> tuple[BackendRow, ...]:
    return tuple(row for row in BACKENDS if row.framework == framework)


def judge_backends(problem: Problem, *, framework: str) -> tuple[Candidate, ...]:
    """Every backend of the framework with its verdict on the problem, in order of preference."""
    return tuple(Candidate(backend=row.name, reason=import_module(row.module).rejects(problem)) for row in _rows(framework))


def _choose(candidates: tuple[Candidate, ...], backend: str, problem: Problem) -> Candidate:
    verdicts = "; ".join(f"{c.backend}: {c.reason or 'available'}" for c in candidates)
    wanted = [c for c in candidates if backend in ("auto", c.backend)]
    for candidate in wanted:
        if candidate.reason is None:
            return candidate
    msg = (
        f"backend={backend!r} cannot step band {problem.band} on {problem.device}. {verdicts}. "
        "Use backend='auto' without SONEW_BACKEND, or fix the reason given."
    )
    raise BackendUnavailableError(msg)


SHIPPED_FOLDER: Final = Path(sonew_kernels.__file__).parent / "tuned"


def shipped_store_paths() -> list[Path]:
    """Files of the configurations that travel with the kernels."""
    return sorted(SHIPPED_FOLDER.glob("*.json"))


def _stores(tuning: str) -> list[tuned.Store]:
    if tuning == "off":
        return []
    shipped = [tuned.read_store("shipped store", path) for path in shipped_store_paths()]
    return shipped if tuning == "pinned" else [tuned.read_store("user store", paths.store_path()), *shipped]


def default_config(kernel: str, band: int) -> LaunchConfig:
    """The analytic default of a kernel family, or an empty configuration where nothing is tuned."""
    return LaunchConfig.of(kernel, SPECS[kernel].default(band)) if kernel else LaunchConfig(kernel="")


def _provenance(found: tuned.Verdict | None, verdicts: Sequence[tuned.Verdict], problems: Sequence[str], tuning: str) -> str:
    if found is not None:
        size = "exact size bucket" if found.distance == 0 else f"nearest size bucket, {found.distance} steps away"
        date = found.entry.evidence.get("date", "no date")
        return f"tuned entry ({'; '.join([f'{found.entry.kind}, {found.store}, {size}, {date}', *problems])})"
    why = {"off": "tuning is off", "pinned": "no shipped entry fits"}.get(tuning, "no stored entry fits")
    miss = tuned.near_miss(verdicts)
    details = [*([f"nearest entry: {', '.join(miss.reasons)}"] if miss else []), *problems]
    return f"analytic default ({'; '.join([why, *details])})"


def explain(
    problem: Problem, *, framework: str = "torch", backend: str = "auto", config: LaunchConfig | None = None, tuning: str = "on"
) -> Explanation:
    """Every backend with its verdict, every stored entry with the reasons for or against it, and the plan that follows.

    Args:
        problem: what is to be stepped.
        framework: "torch" or "jax".
        backend: a name, or "auto"; then SONEW_BACKEND, if set, decides.
        config: an explicit configuration, instead of the stores.
        tuning: "on": user store, shipped store, analytic default; "pinned": shipped store only, so that a run does not
            depend on what was tuned on this machine; "off": analytic default.

    Raises:
        InvalidConfigError: an unknown name or a configuration outside the kernel's space.
        BackendUnavailableError: an explicit request that cannot be met.
    """
    check_request(backend, tuning, framework)
    candidates = judge_backends(problem, framework=framework)
    request = requested_backend(backend, framework)
    chosen = _choose(candidates, request, problem)
    module = import_module(next(row.module for row in _rows(framework) if row.name == chosen.backend))
    kernel: str = module.KERNEL
    key: tuned.Key | None = None
    verdicts: tuple[tuned.Verdict, ...] = ()
    problems: tuple[str, ...] = ()
    if config is not None:
        if reason := (SPECS[kernel].rejects(config.as_dict(), problem.band) if kernel else "this backend has nothing to tune"):
            msg = f"config={config.as_dict()} is not allowed: {reason}"
            raise InvalidConfigError(msg)
        provenance = "explicit configuration"
    elif not kernel:
        config, provenance = default_config(kernel, problem.band), "nothing to tune"
    else:
        key = tuned.make_key(problem, kernel, module.environment(), source_hash(kernel))
        stores = _stores(tuning)
        problems = tuple(line for store in stores for line in store.problems)
        verdicts = tuple(
            tuned.judge(store.name, entry, key, SPECS[kernel].rejects(entry.config.as_dict(), problem.band))
            for store in stores
            for entry in store.entries
            if entry.key.kernel == kernel
        )
        found = tuned.best(verdicts)
        config = found.entry.config if found else default_config(kernel, problem.band)
        provenance = _provenance(found, verdicts, problems, tuning)
    if request == "auto":
        provenance += "".join(f"; {c.backend} passed over ({c.reason})" for c in _passed_over(candidates, chosen.backend, problem.device))
    plan = Plan(problem=problem, backend=chosen.backend, config=config, provenance=provenance)
    return Explanation(plan=plan, candidates=candidates, key=key, verdicts=verdicts, problems=problems)


def _passed_over(candidates: Sequence[Candidate], chosen: str, device: str) -> list[Candidate]:
    """Backends made for this device that come before the chosen one, and so cannot run."""
    made_for = {row.name for row in BACKENDS if row.device == device}
    return [c for c in itertools.takewhile(lambda c: c.backend != chosen, candidates) if c.backend in made_for]


def make_plan(
    problem: Problem, *, framework: str = "torch", backend: str = "auto", config: LaunchConfig | None = None, tuning: str = "on"
) -> Plan:
    """The plan for a problem; arguments and errors as in `explain`. Warns when a slow backend stands in for a faster one."""
    explanation = explain(problem, framework=framework, backend=backend, config=config, tuning=tuning)
    plan = explanation.plan
    for candidate in (
        _passed_over(explanation.candidates, plan.backend, problem.device) if requested_backend(backend, framework) == "auto" else ()
    ):
        message = f"sonew uses the slow {plan.backend} backend on {problem.device}: {candidate.backend} cannot run ({candidate.reason})"
        warnings.warn(message, SonewFallbackWarning, stacklevel=2)
    return plan


def load_backend(plan: Plan, *, framework: str = "torch") -> ModuleType:
    """The module of the plan's backend."""
    return import_module(next(row.module for row in _rows(framework) if row.name == plan.backend))


def load_step_group(plan: Plan) -> type[Any]:
    """The `StepGroup` class of a plan's backend for torch."""
    group: type[Any] = load_backend(plan).StepGroup
    return group


def split_launch_groups(lengths: Sequence[int], cap: int = LAUNCH_GROUP_ELEMENTS) -> list[range]:
    """Cut a list of tensor lengths into consecutive launch groups of at most `cap` elements, or one larger tensor."""
    groups: list[range] = []
    start, held = 0, 0
    for index, length in enumerate(lengths):
        if index > start and held + length > cap:
            groups.append(range(start, index))
            start, held = index, 0
        held += length
    if lengths:
        groups.append(range(start, len(lengths)))
    return groups
