"""What can be measured, derived from the kernel specs, the backends and the models: a group of cases that take turns in one process.

A group's cases never depend on how much of the suite runs: a time depends on what else takes turns with it, and a series must mean the
same in every run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from sonew.errors import InvalidConfigError
from sonew.registry import BACKENDS
from sonew_autotune.problems import MODELS, STATES
from sonew_kernels.spec import SPECS, SUPPORTED_BANDS
from sonew_perf.jax.request import ADAMW, LARGEST_XLA_BAND, Method
from sonew_perf.records.files import Entry
from sonew_perf.steps import host, runner
from sonew_perf.steps.cases import Wanted, sonew_wanted, wanted_cases, whole_model
from sonew_perf.steps.phases import PHASES
from sonew_perf.steps.workloads import Workload, one_tensor
from sonew_perf.suite.imports import MODULES
from sonew_perf.suite.tuning import BAND as TUNED_BAND
from sonew_perf.suite.tuning import CASE as TUNED_CASE
from sonew_perf.suite.tuning import SIZE as TUNED_SIZE

STEP: Final = "step"
PHASE: Final = "phases"
HOST: Final = "host"
IMPORT: Final = "import"
TUNER: Final = "tuner"
EFFORTS: Final = ("quick", "normal", "full")
DEVICES: Final = tuple(sorted({{"gpu": "cuda"}.get(spec.device, spec.device) for spec in SPECS.values()}))
FRAMEWORKS: Final = tuple(dict.fromkeys(row.framework for row in BACKENDS))
SIZES: Final = tuple(2**power for power in (10, 16, 20, 22, 24, 26))
MAIN_BANDS: Final = (1, 4)  # the paper's choice, and the widest that costs little more than its memory traffic
SIZES_OF_INTEREST: Final = {"cpu": (2**16, 2**22), "cuda": (2**20, 2**26)}
MODEL_OF_INTEREST: Final = "mnist-autoencoder"
HOST_MODEL: Final = "gpt2-small"
HOST_BAND: Final = 1
LARGEST_REFERENCE: Final = 2**10  # elements up to which the plain reference is timed too: it is a hundred times slower
JAX_STATES: Final = ("float32",)  # what `jax.request.Method` can ask for


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Cases that take turns in one process.

    Attributes:
        what: `STEP`, `PHASE`, `HOST`, `IMPORT` or `TUNER`.
        effort: the least one of `EFFORTS` that it is part of.
        framework: "torch" or "jax". device: "cpu" or "cuda".
        workload: whose tensors; None where it means nothing. bands: of SONew.
        state: type of state and direction. main: whether its peers stand for their workload; other groups' peers are series of their own.
    """

    what: str
    effort: str
    framework: str
    device: str = "cpu"
    workload: Workload | None = None
    bands: tuple[int, ...] = ()
    state: str = "float32"
    main: bool = True

    @property
    def name(self) -> str:
        """Unique, for `--only`: "step/torch/cpu/4Mi/float32/bands-1-4"."""
        if self.what in (STEP, PHASE):
            bands = f"bands-{'-'.join(map(str, self.bands))}"
            return f"{self.what}/{self.framework}/{self.device}/{label(self.workload)}/{self.state}/{bands}"
        if self.what == HOST:
            return f"{self.what}/{self.framework}/{label(self.workload)}"
        return f"{self.what}/{self.framework or 'sonew'}" if self.what == IMPORT else f"{self.what}/{self.device}"

    @property
    def wanted(self) -> list[Wanted]:
        """The cases of a step in torch, and SONew's behind phases."""
        if self.what == PHASE:
            return [sonew_wanted(band, state=self.state) for band in self.bands]
        small = self.workload is not None and self.workload.elements <= LARGEST_REFERENCE
        return wanted_cases(self.bands, reference=small and self.state == "float32", foreach=self.main, state=self.state)

    @property
    def methods(self) -> tuple[Method, ...]:
        """The cases of a step in JAX: each backend that serves the device, as `sonew.registry` orders them."""
        names = [row.name for row in BACKENDS if row.framework == "jax" and row.device in ("", self.device)]
        ours = [Method(band=band, backend=name) for band in self.bands for name in names if name == "triton" or band <= LARGEST_XLA_BAND]
        return Method(family=ADAMW), *ours

    @property
    def cases(self) -> list[Entry]:
        """What an entry says of each case before it is timed: enough to say why it was not."""
        return [self._shared | case for case in _CASES[self.what, self.framework if self.what == STEP else ""](self)]

    @property
    def _shared(self) -> Entry:
        workload = self.workload
        described = {} if workload is None else {"workload": host.described(workload) if self.what == HOST else workload.described()}
        return {"group": self.name, "framework": self.framework, **described}

    def beside(self, settings: Entry) -> Entry:
        """Settings of a case, which for a peer outside its workload's main group say beside what it was timed."""
        if self.main or settings.get("optimizer") == "SONew" or settings.get("family") == "SONew":
            return settings
        state = "" if self.state == "float32" else f", {self.state} state"
        return settings | {"beside": f"bands {' '.join(map(str, self.bands))}{state}"}


def label(workload: Workload | None) -> str:
    """A workload in a group's name."""
    if workload is None:
        return ""
    if workload.name != "one tensor":
        return workload.name
    power = next((power for power in (20, 10) if workload.elements % 2**power == 0), 0)
    return f"{workload.elements >> power}{ {20: 'Mi', 10: 'Ki', 0: ''}[power] }"


def _torch_cases(group: Group) -> Iterator[Entry]:
    for wanted in group.wanted:
        own = {} if group.workload is None else runner.own_fields(wanted.settings, group.workload)
        yield {"kind": "step time", "kernel": STEP, "case": wanted.name, "settings": group.beside(dict(wanted.settings)), **own}


def _jax_cases(group: Group) -> Iterator[Entry]:
    for method in group.methods:
        settings: Entry = {"family": method.family}
        if method.family != ADAMW:
            settings |= {"band": method.band, "backend": method.backend}
        yield {"kind": "jax step time", "kernel": STEP, "case": method.case, "settings": group.beside(settings), "dtype": group.state}


def _phase_cases(group: Group) -> Iterator[Entry]:
    for wanted, phase in itertools.product(group.wanted, PHASES):
        own = {} if group.workload is None else runner.own_fields(wanted.settings, group.workload, phase)
        yield {"kind": "phase time", "kernel": phase, "case": wanted.name, "settings": dict(wanted.settings), **own}


def _host_cases(group: Group) -> Iterator[Entry]:
    for name, settings in host.case_settings():
        yield {"kind": "host time", "kernel": HOST, "case": name, "settings": settings, "band": group.bands[0]}


def _import_cases(group: Group) -> Iterator[Entry]:
    for module in MODULES[group.framework]:
        yield {"kind": "import time", "kernel": IMPORT, "case": module, "settings": {}}


def _tuner_cases(_group: Group) -> Iterator[Entry]:
    yield {"kind": "tuner time", "kernel": TUNER, "case": TUNED_CASE, "settings": {"band": TUNED_BAND}}


_CASES: Final = {
    (STEP, "torch"): _torch_cases,
    (STEP, "jax"): _jax_cases,
    (PHASE, ""): _phase_cases,
    (HOST, ""): _host_cases,
    (IMPORT, ""): _import_cases,
    (TUNER, ""): _tuner_cases,
}


def band_sets(bands: Sequence[int] = SUPPORTED_BANDS) -> list[tuple[int, ...]]:
    """Every band in one set: the main ones together, the others in pairs, because many at once crowd each other out of the caches."""
    others = [band for band in bands if band not in MAIN_BANDS]
    return [MAIN_BANDS, *(tuple(others[start : start + 2]) for start in range(0, len(others), 2))]


def _workloads() -> list[Workload]:
    return [one_tensor(size) for size in SIZES] + [whole_model(name) for name in MODELS]


def _effort(what: str, framework: str, device: str, workload: Workload, state: str, *, main: bool) -> str:
    """How soon a group of steps or phases is worth its time."""
    large = workload.name == "one tensor" and workload.elements == SIZES_OF_INTEREST[device][1]
    interesting = large or (workload.name == "one tensor" and workload.elements in SIZES_OF_INTEREST[device])
    if main and state == "float32" and (large if what == PHASE else interesting) and (framework == "torch" or not large):
        return "quick"
    if what == STEP and main and (interesting or (workload.name == MODEL_OF_INTEREST and framework == "torch")):
        return "normal"  # XLA compiles a step over many leaves for a minute
    return "normal" if what == STEP and framework == "torch" and large and state == "float32" else "full"


def _steps(what: str, framework: str, device: str) -> Iterator[Group]:
    """Every workload with every state type and set of bands."""
    states = STATES if framework == "torch" else JAX_STATES
    for workload, state, bands in itertools.product(_workloads(), states, band_sets()):
        if framework == "jax" and device == "cpu" and min(bands) > LARGEST_XLA_BAND:
            continue
        if what == PHASE and workload.name != "one tensor":
            continue  # a model's phases are those of its launch groups, which are tensors of such sizes
        main = state == "float32" and bands == MAIN_BANDS
        effort = _effort(what, framework, device, workload, state, main=bands == MAIN_BANDS)
        yield Group(what=what, effort=effort, framework=framework, device=device, workload=workload, bands=bands, state=state, main=main)


def all_groups() -> list[Group]:
    """Every group that there is, on every device."""
    groups = [
        *(group for device, framework in itertools.product(DEVICES, FRAMEWORKS) for group in _steps(STEP, framework, device)),
        *(group for device in DEVICES for group in _steps(PHASE, "torch", device)),
    ]
    for model in MODELS:
        effort = "quick" if model == HOST_MODEL else "full"
        groups.append(Group(what=HOST, effort=effort, framework="torch", workload=whole_model(model), bands=(HOST_BAND,)))
    groups += [Group(what=IMPORT, effort="normal" if framework else "quick", framework=framework) for framework in MODULES]
    tuned = one_tensor(TUNED_SIZE)
    groups += [Group(what=TUNER, effort="normal", framework="torch", device=device, workload=tuned) for device in DEVICES]
    return groups


def select(groups: Iterable[Group], *, effort: str, devices: Sequence[str], only: Sequence[str] = ()) -> list[Group]:
    """The groups of an effort on some devices whose names match one of the patterns, if there are any.

    Raises:
        InvalidConfigError: a pattern that matches no group.
    """
    there = [group for group in groups if group.device in devices]
    chosen = [group for group in there if EFFORTS.index(group.effort) <= EFFORTS.index(effort)]
    for pattern in only:
        if any(fnmatchcase(group.name, pattern) for group in chosen):
            continue
        more = {group.effort for group in there if fnmatchcase(group.name, pattern)}
        fix = f"Pass --effort {min(more, key=EFFORTS.index)} too." if more else "See sonew-perf run --list --effort full."
        msg = f"only={pattern!r} matches none of the {len(chosen)} groups of effort {effort} on {' and '.join(devices)}. {fix}"
        raise InvalidConfigError(msg)
    return [group for group in chosen if not only or any(fnmatchcase(group.name, pattern) for pattern in only)]
