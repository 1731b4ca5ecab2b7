"""Training runs as tables and sentences for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.markup import escape

from sonew_perf.tables import MEBI, plain_table, titled
from sonew_perf.training.race import Method, Race, Share, Standing
from sonew_perf.training.results import PACKAGES
from sonew_perf.training.summary import Cell, Curve

NOTES: Final = "Mean over the seeds (range). ms: least medians over the runs, as other work only adds to them."


def _number(loss: float) -> str:
    """A loss: summed over pixels it is in the hundreds, of one character about 1."""
    return f"{loss:.2f}" if abs(loss) >= 10 else f"{loss:.4f}"


def _loss(cell: Cell) -> str:
    spread = f" ({_number(min(cell.losses))} to {_number(max(cell.losses))})" if len(cell.losses) > 1 else ""
    return f"{_number(cell.mean)}{spread}"


def _percent(share: Share) -> str:
    low, high = f"{100 * share.low:.0f}", f"{100 * share.high:.0f}"
    return f"{100 * share.mean:.0f} %" + (f" ({low} to {high})" if low != high else "")


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def headline(race: Race) -> str:
    """Machine, versions, seeds and load of a race, in one line."""
    about, machines = race.conditions, [result.entry["machine"] for result in race.results]
    said = [f"{about.device} ({about.type}), {about.threads} CPU threads" + (f", {about.flags}" if about.flags else "")]
    for name in PACKAGES:
        found = dict.fromkeys(str(machine[name]) for machine in machines if name in machine)
        said += [f"{name} {' and '.join(found)}"] if found else []
    seeds = sorted({result.seed for result in race.results})
    said.append(f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}")
    if loads := [result.load for result in race.results if result.load is not None]:
        said.append(f"load average before the runs {_range(loads)}")
    return "; ".join(said)


def title(race: Race, task: str, loss: str) -> str:
    """What was trained.

    Args:
        race: the runs. task, loss: the names of the task and of its loss.
    """
    about = race.conditions
    of = "" if about.steps == about.schedule_steps else f" of a schedule of {about.schedule_steps}"
    return f"{task}, {about.steps} steps{of}, batch {about.batch}, learning rate by {about.lr_rule}: {loss}"


def grid_table(curves: Sequence[Curve]) -> Group:
    """Loss per learning rate and method: mean and range over the seeds, each method's best in bold."""
    table = plain_table(("lr", *(escape(curve.label) for curve in curves)))
    for lr in sorted({cell.lr for curve in curves for cell in curve.cells}):
        marked = []
        for curve in curves:
            cell = next((cell for cell in curve.cells if cell.lr == lr), None)
            text = "-" if cell is None else _loss(cell)
            marked.append(f"[bold]{text}[/bold]" if cell is curve.best and not curve.diverged else text)
        table.add_row(f"{lr:.4g}", *marked)
    return titled("Grid of learning rates", table, "Mean over the seeds (range); bold: the method's best.")


def method_table(race: Race, name: str) -> Group:
    """Per method, at its best settings: learning rate, loss, time of a step and the optimizer's part of it, state, fallback where counted.

    Args:
        race: the runs. name: for the table (`title`).
    """
    methods = [standing.method for standing in race.standings]
    counted = any(method.fallback is not None for method in methods)
    table = plain_table(("method", "lr", "loss", "ms/step", "optimizer ms", "state MiB", *(["fallback"] if counted else [])))
    for method in methods:
        fallback = [] if not counted else ["-" if method.fallback is None else f"{method.fallback:.2%}"]
        table.add_row(
            escape(method.label),
            f"{method.grid.best.lr:.4g}" + (" [red]at edge[/red]" if method.grid.obstacle is not None else ""),
            "[red]diverged[/red]" if method.grid.diverged else _loss(method.grid.best),
            f"{1000 * method.step_s:.1f}",
            f"{1000 * method.optimizer_step_s:.2f}",
            f"{method.state_bytes / MEBI:.1f}",
            *fallback,
        )
    notes = f"{NOTES} Fallback: the largest share of a layer's columns at the end." if counted else NOTES
    return titled(name, table, f"{headline(race)}\n{notes}")


def _shares(standing: Standing) -> tuple[str, str, str, str]:
    there = [steps for steps in standing.reached if steps is not None]
    if standing.steps is None or standing.wall is None or standing.optimizer is None:
        return (f"{len(there)} of {len(standing.reached)} seeds" if there else "never", "-", "-", "-")
    return f"{sum(there) / len(there):.0f}", _percent(standing.steps), _percent(standing.wall), _percent(standing.optimizer)


def _baselines(race: Race) -> list[tuple[Method, list[Standing]]]:
    """Each baseline, with those that are held against it, itself among them."""
    found: dict[str, tuple[Method, list[Standing]]] = {}
    for standing in race.standings:
        if standing.baseline is not None:
            found.setdefault(standing.baseline.label, (standing.baseline, []))[1].append(standing)
    return [(baseline, members) for baseline, members in found.values() if any(member.method is not baseline for member in members)]


def share_tables(race: Race) -> list[RenderableType]:
    """Steps to each baseline's best loss, and the shares of its steps, wall time and optimizer time."""
    made: list[RenderableType] = []
    for baseline, members in _baselines(race):
        table = plain_table(("method", "steps", "share of steps", "of wall time", "of optimizer time"))
        for standing in members:
            table.add_row(escape(standing.method.label), *_shares(standing))
        every = race.conditions.every
        notes = f"Mean training loss of {every} step{'s' * (every > 1)}, against {baseline.label}'s last. Mean over the seeds (range)."
        made.append(titled(f"To {baseline.label}'s best final loss, {_number(members[0].target)}", table, notes))
    return made


def lowest_line(race: Race) -> str:
    """Which method ends lowest and what that costs, in a sentence."""
    standing = min(race.standings, key=lambda one: one.method.loss)
    method, baseline = standing.method, standing.baseline
    if method.grid.diverged:
        return "every method diverged"
    said = f"{method.label} ends lowest: {_loss(method.grid.best)}"
    if baseline is None or baseline is method:
        return said
    apart = "0.0%" if method.loss == baseline.loss else f"{1 - method.loss / baseline.loss:.1%}"
    return (
        f"{said}, {'level with' if apart == '0.0%' else f'{apart} below'} {baseline.label}; it costs {method.step_s / baseline.step_s:.2f} "
        f"times the wall time of a step, {method.optimizer_step_s / baseline.optimizer_step_s:.2f} times the optimizer's and "
        f"{method.state_bytes / max(1, baseline.state_bytes):.2f} times the state"
    )


def _least(members: Sequence[Standing], name: str) -> tuple[str, str]:
    """Who needs the least, and what share."""
    shares: dict[str, Share] = {member.method.label: share for member in members if (share := getattr(member, name)) is not None}
    label = min(shares, key=lambda one: shares[one].mean)
    return label, _percent(shares[label])


def share_lines(race: Race) -> list[str]:
    """For each baseline who needs the least of everything to reach its best loss, in a sentence."""
    lines = []
    for baseline, members in _baselines(race):
        if not any(member.steps is not None for member in members if member.method is not baseline):
            lines.append(f"no other method reaches {baseline.label}'s best final loss with every seed")
            continue
        what = {"steps": "fewest steps", "wall": "least wall time", "optimizer": "least optimizer time"}
        said = [f"{label} takes the {words}, {share}" for name, words in what.items() for label, share in [_least(members, name)]]
        lines.append(f"to {baseline.label}'s best final loss, in shares of what {baseline.label} needs: {'; '.join(said)}")
    return lines


def obstacle_lines(race: Race) -> list[str]:
    """Why a method's best learning rate is not judged, a line for each."""
    found = [standing.method.grid.obstacle for standing in race.standings]
    return [f"not judged: {obstacle}, move the grid with --lr" for obstacle in found if obstacle is not None]


def tables(race: Race, name: str) -> list[RenderableType]:
    """Every table of a race, under its name."""
    grids = [standing.method.grid for standing in race.standings if standing.method.grid.is_grid]
    return [*([grid_table(grids)] if grids else []), method_table(race, name), *share_tables(race)]


def lines(race: Race) -> list[str]:
    """Every sentence of a race."""
    return [lowest_line(race), *share_lines(race), *obstacle_lines(race)]
