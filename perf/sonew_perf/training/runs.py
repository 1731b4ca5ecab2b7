"""What one training run is, the runs of a command, and what a record must agree on to be a run's result. No framework is loaded here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sonew.config import default_gamma
from sonew_perf.records.files import Entry
from sonew_perf.training.settings import Settings, as_entry

KIND: Final = "training run"
BASELINES: Final = ("adam", "adamw")  # whose steps and seconds to a loss the others' are shares of: the first that was trained
PLAIN: Final[Mapping[str, Any]] = {"chain": "tensor", "eps_rel": 0.0, "gamma": None, "graft": "adam", "layers": "all", "idea": "none"}
"""Settings that change what a method does, with the values that a label leaves out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training run.

    Attributes:
        task: key of `tasks.table.TASKS`. method: key of `methods.METHODS`; uses: the settings that it takes; name: for tables.
        framework: "torch" or "jax". precision: key of `methods.PRECISIONS`.
        settings: of the optimizer. lr_rule: of `schedule.RULES`. schedule_steps: how long that rule is; a run may end before it.
        seed: of the weights and of the order of the examples. steps: optimizer steps. batch: examples per step.
    """

    task: str
    method: str
    uses: tuple[str, ...]
    name: str
    framework: str
    precision: str
    settings: Settings
    lr_rule: str
    schedule_steps: int
    seed: int
    steps: int
    batch: int

    @property
    def band(self) -> int | None:
        """None for a method without one."""
        return self.settings.band if "band" in self.uses else None

    def describe(self) -> Entry:
        """What is trained, with everything but the optimizer's settings, as records and studies name it."""
        return {
            "task": self.task,
            "framework": self.framework,
            "precision": self.precision,
            "method": self.method,
            "band": self.band,
            "lr_rule": self.lr_rule,
            "schedule_steps": self.schedule_steps,
            "seed": self.seed,
            "steps": self.steps,
            "batch": self.batch,
        }

    def fixed(self, searched: Iterable[str]) -> Entry:
        """The settings that a search of these does not vary."""
        return {name: value for name, value in as_entry(self.settings, self.uses).items() if name not in set(searched)}

    @property
    def hyper(self) -> Entry:
        """The settings as a record holds them: gamma to three digits as it acts with narrow state, since its default may become another."""
        made = as_entry(self.settings, self.uses)
        if made.get("gamma", 0.0) is None and self.precision != "fp32":
            made["gamma"] = float(f"{default_gamma('bfloat16', self.settings.beta2, self.settings.band):.3g}")
        return made

    @property
    def label(self) -> str:
        """The method as tables name it: with everything that is not plain, but not its rates."""
        return label(self.name, self.band, self.framework, self.precision, self.hyper)


def label(name: str, band: int | None, framework: str, precision: str, hyper: Mapping[str, Any]) -> str:
    """A method's name with what changes what it does."""
    said = [name if band is None else f"{name} band {band}"]
    said += [f"{key} {hyper[key]}" for key, plain in PLAIN.items() if key in hyper and hyper[key] != plain]
    said += [precision] * (precision != "fp32") + ["JAX"] * (framework == "jax")
    return ", ".join(said)


def identity(run: Run, data: Mapping[str, Any], machine: Mapping[str, Any]) -> Entry:
    """What an entry must agree on to be this run's result: the run, the data and the machine."""
    return {
        "kind": KIND,
        **run.describe(),
        "label": run.label,
        "lr": run.settings.lr,
        "hyper": run.hyper,
        "data": dict(data),
        "machine": dict(machine),
    }


def find_result(entries: Iterable[Entry], wanted: Entry) -> Entry | None:
    """The recorded result with this identity, if there is one."""
    return next((entry for entry in entries if all(entry.get(name) == value for name, value in wanted.items())), None)


def by_label(runs: Sequence[Run], entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """The results of each method, in the order of the runs."""
    found: dict[str, list[Entry]] = {}
    for run, entry in zip(runs, entries, strict=True):
        found.setdefault(run.label, []).append(entry)
    return found
