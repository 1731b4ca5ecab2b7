"""What a comparison times: whole optimizer steps, described so that either side's process can build them from its own SONew."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from sonew.errors import InvalidConfigError
from sonew_autotune.problems import MODELS, STATES, check_choice
from sonew_kernels.spec import STORAGE_BYTES, SUPPORTED_BANDS
from sonew_perf.jax.request import LARGEST_XLA_BAND
from sonew_perf.steps.workloads import Workload, one_tensor

TORCH: Final = "torch"
JAX: Final = "jax"
FRAMEWORKS: Final = (TORCH, JAX)
AUTOENCODER: Final = "mnist-autoencoder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One optimizer step.

    Attributes:
        framework: "torch" or "jax". workload: the tensors. band: off-diagonals. state: type of state and direction (torch only).
    """

    framework: str
    workload: Workload
    band: int
    state: str = "float32"

    @property
    def name(self) -> str:
        """Unique in a comparison."""
        where = f"{self.workload.elements} elements" if self.workload.name == "one tensor" else self.workload.name
        state = "" if self.state == "float32" else f", {self.state} state"
        return f"{self.framework} step, band {self.band}, {where}{state}"

    @property
    def held_bytes(self) -> int:
        """What a side's process holds for it: parameters, gradients, state and the direction buffer."""
        state = STORAGE_BYTES[self.state]
        return self.workload.elements * (2 * STORAGE_BYTES["float32"] + (self.band + 3) * state)

    def request(self) -> dict[str, Any]:
        """As the sampler takes it."""
        return {"name": self.name, "framework": self.framework, "band": self.band, "state": self.state, "shapes": self.workload.shapes}

    def identity(self) -> dict[str, Any]:
        """What of a `records.model.Series` the case decides."""
        dtype = "float32" if self.state == "float32" else f"float32, {self.state} state"
        described = {"kernel": "step", "framework": self.framework, "workload": self.workload.name, "elements": self.workload.elements}
        return described | {"dtype": dtype, "band": self.band, "variant": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The cases to compare: every framework with every size and model, band and state; `only` keeps those whose names match a pattern."""

    frameworks: Sequence[str] = (TORCH,)
    bands: Sequence[int] = (1, 4)
    sizes: Sequence[int] = ()
    models: Sequence[str] = ()
    states: Sequence[str] = ("float32",)
    only: Sequence[str] = ()


EFFORTS: Final[Mapping[str, Choice]] = {
    "quick": Choice(sizes=(65536, 1048576)),
    "normal": Choice(frameworks=FRAMEWORKS, bands=(0, 1, 2, 4), sizes=(65536, 1048576), models=(AUTOENCODER,), states=tuple(STATES)),
    "full": Choice(
        frameworks=FRAMEWORKS,
        bands=tuple(SUPPORTED_BANDS),
        sizes=(1024, 65536, 1048576, 16777216),
        models=tuple(MODELS)[:2],
        states=tuple(STATES),
    ),
}


def _workloads(choice: Choice) -> list[Workload]:
    for model in choice.models:
        check_choice("model", model, list(MODELS), f"Pass for example --model {AUTOENCODER}.")
    return [one_tensor(size) for size in dict.fromkeys(choice.sizes)] + [Workload(name, MODELS[name]) for name in choice.models]


def chosen_cases(choice: Choice) -> list[Case]:
    """The cases of a choice.

    XLA unrolls the elimination, which takes minutes to compile for wide bands: with JAX only bands up to `LARGEST_XLA_BAND` are compared,
    and its state is float32.

    Raises:
        InvalidConfigError: a value outside its allowed set, or nothing is left.
    """
    for framework in choice.frameworks:
        check_choice("framework", framework, FRAMEWORKS, "Pass for example --framework torch.")
    for band in choice.bands:
        check_choice("band", band, SUPPORTED_BANDS, "Pass for example --band 1.")
    for state in choice.states:
        check_choice("state", state, list(STATES), "Pass for example --state bfloat16.")
    made = [
        Case(framework=framework, workload=workload, band=band, state=state)
        for framework, workload, band, state in itertools.product(choice.frameworks, _workloads(choice), choice.bands, choice.states)
        if framework == TORCH or (band <= LARGEST_XLA_BAND and state == "float32")
    ]
    if not made:
        msg = (
            f"nothing is left of frameworks {list(choice.frameworks)}, bands {list(choice.bands)} and states {list(choice.states)}: "
            f"JAX takes bands up to {LARGEST_XLA_BAND} with float32 state. Pass for example --framework torch."
        )
        raise InvalidConfigError(msg)
    wanted = [case for case in made if not choice.only or any(fnmatchcase(case.name, pattern) for pattern in choice.only)]
    if not wanted:
        msg = f"only={list(choice.only)!r} matches none of {[case.name for case in made]}. Pass a pattern such as --only '*band 1*'."
        raise InvalidConfigError(msg)
    return wanted
