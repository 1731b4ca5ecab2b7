"""Training: the loss against steps, seconds and bytes of state."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from sonew_perf.dashboard.content import Content, Row
from sonew_perf.dashboard.views.plain import even_places, number, plain
from sonew_perf.records.checks import is_number

MOST_LOSSES: Final = 200
LAST_STEPS: Final = 20  # where a record has no result of its own, the mean loss over these
ELEMENTS: Final[Mapping[str, int]] = {"autoencoder": 2_837_314}  # parameters of a task's model
STATE_BYTES: Final[Mapping[str, Callable[[int], int]]] = {  # per parameter, by band: momentum and band + 1 rows, or two means
    "sonew": lambda band: 4 * (band + 2),
    "sonew-bf16-state": lambda band: 2 * (band + 2),
    "adamw": lambda _band: 8,
}
LABELS: Final[Mapping[str, str]] = {"sonew": "SONew band {band}", "sonew-bf16-state": "SONew band {band}, bf16 state", "adamw": "AdamW"}
Group = tuple[str, str, str]  # task, label, run


def convergence(content: Content) -> Row:
    """The view `convergence`."""
    entries = [entry for entry in content.index.training_entries() if _usable(entry)]
    best = _best_rates(entries)
    tasks: dict[str, list[Row]] = defaultdict(list)
    for entry in entries:
        tasks[entry["task"]].append(_curve(content, entry, best=best.get(_group(entry)) == entry["lr"]))
    return {"tasks": [{"task": task, "runs": curves} for task, curves in tasks.items()]}


def _usable(entry: Mapping[str, Any]) -> bool:
    """Whether a foreign entry has what a curve needs."""
    losses, band = entry.get("losses"), entry.get("band")
    texts = all(isinstance(entry.get(name), str) for name in ("task", "method", "run"))
    numbers = isinstance(losses, list) and losses and all(loss is None or is_number(loss) for loss in losses)
    return texts and bool(numbers) and is_number(entry.get("lr")) and (band is None or (isinstance(band, int) and is_number(band)))


def _label(entry: Mapping[str, Any]) -> str:
    """The method with what changes what it does, but not its learning rate."""
    method, hyper = str(entry["method"]), entry.get("hyper")
    gamma = hyper.get("gamma") if isinstance(hyper, Mapping) else None
    said = f", gamma {gamma:g}" if is_number(gamma) else ""
    return LABELS.get(method, method).replace("{band}", str(entry.get("band"))) + said


def _group(entry: Mapping[str, Any]) -> Group:
    """What learning rates are chosen within: a method in one run of the command."""
    return entry["task"], _label(entry), entry["run"]


def _final(entry: Mapping[str, Any]) -> float | None:
    """The result; None where training diverged."""
    if "loss" in entry:
        return entry["loss"] if is_number(entry["loss"]) else None
    last = entry["losses"][-LAST_STEPS:]
    return None if None in last else statistics.fmean(last)


def _best_rates(entries: list[Row]) -> dict[Group, float]:
    """The learning rate with the least mean final loss over its seeds; a rate at which a seed diverged is out."""
    finals: dict[Group, dict[float, list[float | None]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        finals[_group(entry)][entry["lr"]].append(_final(entry))
    best = {}
    for group, rates in finals.items():
        means = {rate: statistics.fmean(kept) for rate, values in rates.items() if (kept := [v for v in values if v is not None]) == values}
        if means:
            best[group] = min(means, key=lambda rate: means[rate])
    return best


def _state_bytes(entry: Mapping[str, Any]) -> int | None:
    """As recorded, else counted from the method's state."""
    if isinstance(recorded := entry.get("state_bytes"), int) and is_number(recorded):
        return recorded
    per_element, elements = STATE_BYTES.get(entry["method"]), ELEMENTS.get(entry["task"])
    return per_element(int(entry.get("band") or 0)) * elements if per_element is not None and elements is not None else None


def _curve(content: Content, entry: Mapping[str, Any], *, best: bool) -> Row:
    losses = entry["losses"]
    places = even_places(len(losses), MOST_LOSSES)
    run = content.run_by_id.get(entry["run"])
    return {
        "label": _label(entry),
        "method": entry["method"],
        "band": None if entry["method"] == "adamw" else entry.get("band"),
        "lr": entry["lr"],
        "seed": plain(entry.get("seed")),
        "machine": run.machine.id if run else "",
        "run": entry["run"],
        "run_name": (run.label or Path(run.path).stem) if run else entry["run"],
        "date": str(entry.get("date", run.date if run else "")),
        "steps": [place + 1 for place in places],
        "loss": [number(losses[place]) for place in places],
        "seconds_per_step": _per_step(entry, "wall_s"),
        "optimizer_seconds_per_step": _per_step(entry, "optimizer_s"),
        "state_bytes": _state_bytes(entry),
        "final": number(_final(entry)),
        "best": best,
    }


def _per_step(entry: Mapping[str, Any], name: str) -> float | None:
    seconds: Any = entry.get(name)
    return number(seconds / len(entry["losses"])) if is_number(seconds) else None
