"""Training runs held against the baseline's best, as blocks of a README."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Final, Literal

from sonew_perf.errors import RecordError
from sonew_perf.numbers.record import Record
from sonew_perf.numbers.words import NONE, block, bold, facts, listed, mebibytes, number, paragraph, percent, rate, table
from sonew_perf.training.race import Race, Share, Standing, races
from sonew_perf.training.results import PACKAGES
from sonew_perf.training.runs import PLAIN

FAR: Final = 3.0  # a share from which on it is a multiple: 44 x
HEADS: Final = ("method", "settings", "final loss", "ms/step", "optimizer ms", "state MiB")
SHARES: Final = ("steps to {best}", "wall time", "optimizer time")


def find(records: Sequence[Record], **wanted: object) -> Race:
    """The one race of these records whose conditions are as wanted, `task="autoencoder", steps=6000` say.

    Raises:
        RecordError: there is none, or more than one.
    """
    entries = [entry | {"run": record.link} for record in records for entry in record.entries]
    found = [race for race in races(entries) if all(getattr(race.conditions, name) == value for name, value in wanted.items())]
    if len(found) != 1:
        named, known = ", ".join(record.name for record in records), [race.conditions for race in races(entries)]
        msg = f"{named} has {len(found)} races with {wanted}, expected one of {known}. Say more of its conditions, or quote other records."
        raise RecordError(msg)
    return found[0]


def race(*records: Record, command: str = "", **wanted: object) -> str:
    """Every method at its best settings: what it ends at, what it costs, and what share of the baseline's steps and time takes it there.

    Args:
        records: of its runs. command: that makes them. wanted: as `find`.
    """
    found = find(records, **wanted)
    ordered = sorted(found.standings, key=lambda standing: standing.method.loss)
    heads = (*HEADS, *(head.format(best=_best_name(found)) for head in SHARES), "record")
    rows = [_row(standing, best=standing is ordered[0]) for standing in ordered]
    return block(paragraph(_told(found, command)), table(heads, rows), paragraph(_edges(found)))


def loss(*records: Record, label: str, **wanted: object) -> str:
    """What a method ends at, as part of a sentence."""
    return _loss(_standing(find(records, **wanted), label).method.loss)


def share(*records: Record, label: str, of: Literal["steps", "wall", "optimizer"], **wanted: object) -> str:
    """A share of what the baseline needs, as part of a sentence: 66 %, or never."""
    standing = _standing(find(records, **wanted), label)
    return _share(standing, getattr(standing, of))


def _standing(found: Race, label: str) -> Standing:
    for standing in found.standings:
        if standing.method.label == label:
            return standing
    msg = f"the race has no method {label!r}; it has {[standing.method.label for standing in found.standings]}. Name one of them."
    raise RecordError(msg)


def _baselines(found: Race) -> dict[str, float]:
    """What the methods are held against, with its best loss."""
    return {standing.baseline.label: standing.target for standing in found.standings if standing.baseline is not None}


def _best_name(found: Race) -> str:
    names = list(_baselines(found))
    return f"{names[0].partition(',')[0]}'s best" if names else "the best"


def _loss(value: float) -> str:
    return "diverged" if math.isinf(value) else f"{value:.{2 if value >= 10 else 3}f}"


def _settings(standing: Standing) -> str:
    """The learning rate and what the method's name does not say."""
    first = standing.method.results[0]
    said = [("lr", first.lr), *((name, value) for name, value in first.others if name != "band" and name not in PLAIN and value)]
    return ", ".join(f"{name} {_setting(value)}" for name, value in said)


def _setting(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if value >= 0.1 else rate(float(f"{value:.3g}"))


def _share(standing: Standing, value: Share | None) -> str:
    if standing.baseline is None:
        return NONE
    if value is None:
        return "never"
    return percent(value.mean) if value.mean < FAR else f"{number(value.mean)} x"


def _row(standing: Standing, *, best: bool) -> tuple[str, ...]:
    method = standing.method
    losses, seeds = method.grid.best.losses, len(method.results)
    ends = bold(_loss(method.loss), when=best and math.isfinite(method.loss))
    over = f"{_loss(min(losses))} to {_loss(max(losses))}, {seeds} seeds" if seeds > 1 else "1 seed"
    times = (number(1000 * seconds) for seconds in (method.step_s, method.optimizer_step_s))
    shares = (_share(standing, value) for value in (standing.steps, standing.wall, standing.optimizer))
    links = dict.fromkeys(str(result.entry["run"]) for result in method.results)
    return (method.label, _settings(standing), f"{ends} ({over})", *times, mebibytes(method.state_bytes), *shares, ", ".join(links))


def _told(found: Race, command: str) -> str:
    shared, entries = found.conditions, [result.entry for result in found.results]
    length = f"{shared.steps} steps" + (f" of a schedule of {shared.schedule_steps}" if shared.steps != shared.schedule_steps else "")
    loads = [result.load for result in found.results if result.load is not None]
    busy = f", load average before the runs {min(loads):.2f} to {max(loads):.2f} (median {statistics.median(loads):.2f})" if loads else ""
    packages = [name for name in PACKAGES if all(name in entry["machine"] for entry in entries)]
    quiet = [{name: value for name, value in entry.items() if name != "load_before"} for entry in entries]
    targets = [f"{label} at {_loss(target)}" for label, target in _baselines(found).items()]
    made = f"`{command}`. " if command else ""
    told = (
        f"{made}{shared.data}, {length}, batch {shared.batch}. {facts(quiet, packages)}{busy}. Each method at its best settings; final "
        "loss: mean over the seeds, with their range; times: the least medians over the runs."
    )
    if not targets:
        return told
    return f"{told} The shares are of what it takes until the training loss ends, in the mean over the seeds, of {listed(targets)}."


def _edges(found: Race) -> str:
    """Which methods a wider grid of learning rates might serve better."""
    told = [obstacle for standing in found.standings if (obstacle := standing.method.grid.obstacle) is not None]
    return f"Of the searched learning rates {listed(told)}." if told else ""
