"""What a person asks to be trained, as runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sonew.errors import InvalidConfigError
from sonew_perf.training.methods import METHODS
from sonew_perf.training.runs import Run
from sonew_perf.training.settings import NAMES, Settings, known
from sonew_perf.training.tasks.data import Data, steps_per_epoch
from sonew_perf.training.tasks.table import TASKS

TEXTS: Final = ("graft", "layers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options of `sonew-perf train`; None: the task's own.

    Attributes:
        rates: a grid of learning rates; empty: the reference's. given: "name=value" for every method that takes the setting.
        search: settings tried per method before its best is trained with every seed; ranges: key of `settings.RANGES`.
        counters: whether SONew counts what falls back.
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
        """Refuse what fits no task."""
        if self.framework not in TASKS[self.task].frameworks:
            allowed = list(TASKS[self.task].frameworks)
            msg = f"framework={self.framework!r} is not allowed with the task {self.task!r}: it must be one of {allowed}. Pass --framework {allowed[0]}."
            raise InvalidConfigError(msg)
        if self.steps is not None and self.epochs is not None:
            msg = f"steps={self.steps} and epochs={self.epochs:g} are not allowed together: each says how long to train. Pass one of them."
            raise InvalidConfigError(msg)


def read_setting(text: str) -> tuple[str, Any]:
    """A setting given as "name=value".

    Raises:
        InvalidConfigError: an unknown name, or a value of another type.
    """
    name, equals, value = text.partition("=")
    if not equals or name not in NAMES:
        msg = f"--set {text!r} is not allowed: it must be NAME=VALUE with one of {list(NAMES)}. Pass for example --set eps=1e-6."
        raise InvalidConfigError(msg)
    if name in TEXTS:
        return name, value
    if name == "chain":
        return name, int(value) if value.isdecimal() else value
    if name == "gamma" and value == "none":
        return name, None
    try:
        return name, int(value) if name == "band" else float(value)
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
    """
    task = TASKS[asked.task]
    batch = asked.batch or task.batch
    per_epoch = steps_per_epoch(data.examples, batch)
    schedule = round((asked.schedule_epochs or task.epochs) * per_epoch)
    steps = asked.steps or (round(asked.epochs * per_epoch) if asked.epochs is not None else schedule)
    return Run(
        task=asked.task,
        method=method,
        uses=METHODS[method].uses,
        name=METHODS[method].label,
        framework=asked.framework,
        precision=asked.precision,
        settings=settings,
        lr_rule=asked.lr_rule or task.lr_rule,
        schedule_steps=max(1, schedule),
        seed=seed,
        steps=max(1, steps),
        batch=batch,
    )


def make_runs(asked: Asked, data: Data, found: Mapping[tuple[str, int | None], Settings] | None = None) -> list[Run]:
    """Every run, ordered so that a command that was stopped early has whole seeds.

    Args:
        found: settings that a search found, by method and band; they take the place of the reference's.
    """
    rates: Sequence[float | None] = asked.rates or (None,)
    chosen = {
        (method, band, lr): (found or {}).get((method, band)) or settings_of(asked, method, band, lr)
        for method, band in variants(asked)
        for lr in ((None,) if found else rates)
    }
    return [make_run(asked, data, method, settings, seed) for seed in asked.seeds for (method, _, _), settings in chosen.items()]


