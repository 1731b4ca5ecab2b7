"""What a person asks to be trained, as runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from sonew.errors import InvalidConfigError
from sonew_perf.training import methods
from sonew_perf.training.methods import METHODS
from sonew_perf.training.runs import Run
from sonew_perf.training.settings import Settings, known
from sonew_perf.training.tasks.data import Data, steps_per_epoch
from sonew_perf.training.tasks.table import TASKS

SETTABLE: Final = tuple(field.name for field in fields(Settings) if field.name != "band")  # methods are told apart by their bands
TEXTS: Final = ("graft", "layers", "idea")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options of `sonew-perf train`; None: the task's own.

    Attributes:
        epochs, steps: how long to train, one of them. schedule_epochs: how long the learning-rate rule is.
        rates: a grid of learning rates; empty: the reference's. given: "name=value" for every method that takes the setting.
        search: settings tried per method before its best is trained with every seed; ranges: key of `settings.RANGES`.
        counters: whether SONew counts what falls back.

    Raises:
        InvalidConfigError: options that do not fit the task or one another.
    """

    task: str = "autoencoder"
    methods: tuple[str, ...] = ("sonew", "adam")
    bands: tuple[int, ...] = (1,)
    precision: str = "fp32"
    framework: str = "torch"
    epochs: float | None = None
    steps: int | None = None
    schedule_epochs: float | None = None
    lr_rule: str | None = None
    seeds: tuple[int, ...] = (0,)
    batch: int | None = None
    rates: tuple[float, ...] = ()
    given: tuple[str, ...] = ()
    search: int | None = None
    ranges: str = "paper"
    counters: bool = False

    def __post_init__(self) -> None:
        """Refuse what can be refused before the data is read."""
        if self.framework not in TASKS[self.task].frameworks:
            allowed = list(TASKS[self.task].frameworks)
            msg = f"framework={self.framework!r} is not allowed with task={self.task!r}, only {allowed}. Pass --framework {allowed[0]}."
            raise InvalidConfigError(msg)
        if self.steps is not None and self.epochs is not None:
            msg = f"steps={self.steps} and epochs={self.epochs:g} are not allowed together: each says how long to train. Pass one of them."
            raise InvalidConfigError(msg)
        for name, option in (("epochs", "--epochs"), ("schedule_epochs", "--schedule-epochs")):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                msg = f"{name}={value:g} is not allowed: it must be a finite number above 0. Pass for example {option} 5."
                raise InvalidConfigError(msg)
        if self.counters and self.framework != "torch":
            msg = f"--counters is not allowed with framework={self.framework!r}, only with torch. Leave it out, or pass --framework torch."
            raise InvalidConfigError(msg)
        self._check_settings([read_setting(text)[0] for text in self.given])

    def _check_settings(self, names: Sequence[str]) -> None:
        """Refuse settings that nothing takes, that are given twice, or that leave a search nothing to do."""
        for place, name in enumerate(names):
            taking = [method for method, row in METHODS.items() if name in row.uses]
            if not set(taking) & set(self.methods):
                msg = (
                    f"--set {name} is not allowed with {list(self.methods)}, only with {taking}. Add --method {taking[0]} or leave it out."
                )
                raise InvalidConfigError(msg)
            if name in names[:place]:
                msg = f"--set {self.given[place]} is not allowed after another {name}. Pass one; the other is a command of its own."
                raise InvalidConfigError(msg)
        if self.rates and "lr" in names:
            msg = f"--set lr is not allowed with --lr {self.rates[0]:g}: both say the learning rate. Leave one of them out."
            raise InvalidConfigError(msg)
        if self.search is not None and self.rates:
            msg = f"--lr {self.rates[0]:g} is not allowed with --search, which varies every method's learning rate. Leave one of them out."
            raise InvalidConfigError(msg)
        for method in self.methods:
            if self.search is not None and set(METHODS[method].searched) <= set(names):
                varied = list(METHODS[method].searched)
                msg = f"--search is not allowed where --set gives all that it varies in {method}: {varied}. Leave one of them out."
                raise InvalidConfigError(msg)


def read_setting(text: str) -> tuple[str, Any]:
    """A setting given as "name=value".

    Raises:
        InvalidConfigError: an unknown name, or a value of another type.
    """
    name, equals, value = text.partition("=")
    if not equals or name not in SETTABLE:
        fix = "Pass --band" if name == "band" else "Pass for example --set eps=1e-6"
        msg = f"--set {text!r} is not allowed: it must be NAME=VALUE with one of {list(SETTABLE)}. {fix}."
        raise InvalidConfigError(msg)
    if name in TEXTS:
        return name, value
    if name == "chain":
        return name, int(value) if value.isdecimal() else value
    if name == "gamma" and value == "none":
        return name, None
    try:
        return name, float(value)
    except ValueError as error:
        msg = f"--set {text!r} is not allowed: {name} must be a number. Pass for example --set {name}=0.9."
        raise InvalidConfigError(msg) from error


def settings_of(asked: Asked, method: str, band: int | None, lr: float | None = None) -> Settings:
    """The reference settings of a method and band, changed as asked."""
    row = METHODS[method]
    given = {name: value for name, value in map(read_setting, asked.given) if name in row.uses}
    wanted: dict[str, Any] = {**known(asked.task, method, band), **({} if band is None else {"band": band}), **given}
    return Settings(**wanted) if lr is None else replace(Settings(**wanted), lr=lr)


def variants(asked: Asked) -> list[tuple[str, int | None]]:
    """Methods with their bands, in the order asked for."""
    return [(name, band) for name in asked.methods for band in (asked.bands if METHODS[name].has_band else (None,))]


def make_run(asked: Asked, data: Data, method: str, settings: Settings, seed: int) -> Run:
    """A run of a method as asked.

    Raises:
        DataError: the data does not fill a batch.
        InvalidConfigError: as `methods.check_settings`, an idea that is not tried so, or a run that goes on after its learning rate has
            come to 0.
    """
    if settings.idea != "none" and (asked.framework, asked.precision, asked.counters) != ("torch", "fp32", False):
        msg = f"idea={settings.idea!r} is tried in torch and fp32 alone, uncounted. Leave out --framework, --precision and --counters."
        raise InvalidConfigError(msg)
    if asked.framework == "torch" or METHODS[method].has_band:  # what else JAX refuses, `request.check_trains_in_jax` says
        methods.check_settings(method, settings, asked.precision)
    task = TASKS[asked.task]
    batch, lr_rule = asked.batch or task.batch, asked.lr_rule or task.lr_rule
    per_epoch = steps_per_epoch(data.examples, batch)
    schedule = max(1, round((asked.schedule_epochs or task.epochs) * per_epoch))
    steps = asked.steps or (max(1, round(asked.epochs * per_epoch)) if asked.epochs is not None else schedule)
    if steps > schedule and lr_rule != "constant":
        epochs = -(-steps // per_epoch)
        msg = (
            f"{steps} steps are not allowed with a schedule of {schedule}: the learning rate is 0 after it. "
            f"Pass --schedule-epochs {epochs} or --lr-rule constant, or train at most {schedule} steps."
        )
        raise InvalidConfigError(msg)
    return Run(
        task=asked.task,
        method=method,
        uses=METHODS[method].uses,
        name=METHODS[method].label,
        framework=asked.framework,
        precision=asked.precision,
        settings=settings,
        lr_rule=lr_rule,
        schedule_steps=schedule,
        seed=seed,
        steps=steps,
        batch=batch,
    )


def make_runs(asked: Asked, data: Data, found: Mapping[tuple[str, int | None], Settings] | None = None) -> list[Run]:
    """Every run, ordered so that a command that was stopped early has whole seeds.

    Args:
        found: settings that a search found, by method and band; they take the place of the reference's and of the grid.
    """
    rates: Sequence[float | None] = asked.rates or (None,)
    chosen: list[tuple[str, Settings]] = []
    for method, band in variants(asked):
        if found is not None and (method, band) in found:
            chosen.append((method, found[method, band]))
        else:
            chosen += [(method, settings_of(asked, method, band, lr)) for lr in rates]
    return [make_run(asked, data, method, settings, seed) for seed in asked.seeds for method, settings in chosen]
