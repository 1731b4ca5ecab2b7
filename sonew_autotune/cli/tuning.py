"""The commands `run` and `worker`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sonew.errors import InvalidConfigError
from sonew_autotune.cli.options import EPILOG, Band, Device, Dtype, Json, Model, Size, State, StateDir, Store, finish, problems_of
from sonew_autotune.commands.interrupt import interrupted_once
from sonew_autotune.settings import EFFORTS, HEARTBEAT_S, STATIC_BUDGETS_S, Exit, Problems, Settings, make_settings

if TYPE_CHECKING:
    from sonew_autotune.commands.tuning import Places

app: Final = typer.Typer()

Trials = Annotated[int | None, typer.Option(help="Configurations to try per problem, earlier runs counted in.")]
Budget = Annotated[float | None, typer.Option(help="Seconds for the whole run; it may reach 10 s beyond.")]
Effort = Annotated[str, typer.Option(help="; ".join(f"{name}: {s.trials} trials, {s.budget_s:.0f} s" for name, s in EFFORTS.items()))]
Sampler = Annotated[
    str | None,
    typer.Option(help="Optuna's tpe, random, gp, cmaes, qmc, nsgaii, nsgaiii, or every-point. Default: every point where few, else tpe."),
]
TrialTimeout = Annotated[float | None, typer.Option(help="Seconds after which a candidate counts as hung. Default: 120.")]
Seed = Annotated[int, typer.Option(help="Of the search and of the orders of timing.")]
Record = Annotated[Path | None, typer.Option(help="Write every trial's samples to this file, for --replay and validate-model.")]
Replay = Annotated[Path | None, typer.Option(help="Take times from such a file instead of measuring; needs --store.")]


@app.command(
    epilog=EPILOG,
    help=(
        "Tune this machine: check each candidate against the reference, time it against the default, keep what wins.\n\n"
        "A second run reuses what is stored and resumes what was broken off.\n\n"
        "[bold]Examples[/bold]\n\n"
        "  sonew-autotune run\n\n"
        "  sonew-autotune run --effort quick --band 1 --size 4194304\n\n"
        "  sonew-autotune run --model gpt2-small --dtype bfloat16 --budget 600\n\n"
        "  sonew-autotune run --sampler random --seed 7 --record trials.json\n\n"
        "  sonew-autotune run --target cuda:90      (compile and rank for a GPU that is not here)"
    ),
)
def run(
    *,
    band: Band = None,
    size: Size = None,
    model: Model = None,
    dtype: Dtype = None,
    state: State = None,
    device: Device = "auto",
    trials: Trials = None,
    budget: Budget = None,
    effort: Effort = "normal",
    sampler: Sampler = None,
    trial_timeout: TrialTimeout = None,
    seed: Seed = 0,
    target: Annotated[str | None, typer.Option(help="Compile and rank for cuda:80, cuda:90, hip:gfx942 ... instead of measuring.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget earlier trials and tune again.")] = False,
    record: Record = None,
    replay: Replay = None,
    store: Store = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Tune; the help text stands in the decorator."""
    started = time.monotonic()

    def command() -> Exit:
        _refuse("--target", target, {"--record": record, "--replay": replay, "--sampler": sampler, "--trials": trials})
        _refuse("--replay", replay, {"--band": band, "--size": size, "--model": model, "--dtype": dtype, "--state": state})
        seconds = STATIC_BUDGETS_S.get(effort) if budget is None and target is not None else budget
        settings = make_settings(effort, trials=trials, budget_s=seconds, trial_s=trial_timeout, sampler=sampler, seed=seed, fresh=fresh)
        problems = problems_of(band, size, model, dtype, state, device)
        if target is not None:
            from sonew_autotune.commands.ranking import run_static  # noqa: PLC0415  # loads torch: `--help` must not wait for it

            with interrupted_once():
                return run_static(problems, target, settings, started=started, as_json=as_json)
        from sonew_autotune.commands.tuning import Places  # noqa: PLC0415  # loads torch

        return _run_here(problems, settings, Places(store=store, record=record, replay=replay), started=started, as_json=as_json)

    finish(command, store=store, state_dir=state_dir)


def _refuse(option: str, value: object, others: Mapping[str, object]) -> None:
    """Refuse options that another one makes meaningless."""
    given = [name for name, other in others.items() if other]
    if value is not None and given:
        msg = f"{', '.join(given)} has no meaning with {option}={value}: leave out one of the two."
        raise InvalidConfigError(msg)


def _run_here(problems: Problems, settings: Settings, places: Places, *, started: float, as_json: bool) -> Exit:
    from sonew_autotune.commands import tuning  # noqa: PLC0415  # loads torch

    with interrupted_once():
        return tuning.run(problems, settings, places=places, started=started, as_json=as_json)


@app.command(
    epilog=EPILOG,
    help=(
        "Tune together with other machines: every worker takes trials of the same studies, one study per problem and kind of device.\n\n"
        "Start one per device, on any number of machines. A worker that dies loses nothing: its trial is taken up by another. "
        "The result of each problem is decided once, and every worker stores it; sonew-autotune import --storage fetches it later.\n\n"
        "[bold]Examples[/bold]\n\n"
        "  sonew-autotune worker --storage /shared/studies.journal --device cuda:0\n\n"
        "  sonew-autotune worker --storage postgresql+psycopg://tuner@db.example.org/studies --effort full"
    ),
)
def worker(
    *,
    storage: Annotated[str, typer.Option(help="A journal file on a disk that all share, or a database URL (postgresql, mysql, sqlite).")],
    band: Band = None,
    size: Size = None,
    model: Model = None,
    dtype: Dtype = None,
    state: State = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<number>: one device per worker.")] = "auto",
    trials: Trials = None,
    budget: Budget = None,
    effort: Effort = "normal",
    sampler: Sampler = None,
    trial_timeout: TrialTimeout = None,
    heartbeat: Annotated[int, typer.Option(help="Seconds between two signs of life in a database.", min=1)] = HEARTBEAT_S,
    seed: Seed = 0,
    replay: Replay = None,
    store: Store = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Work on shared studies; the help text stands in the decorator."""
    started = time.monotonic()

    def command() -> Exit:
        settings = make_settings(effort, trials=trials, budget_s=budget, trial_s=trial_timeout, sampler=sampler, seed=seed)
        problems = problems_of(band, size, model, dtype, state, device)
        from sonew_autotune.commands.tuning import Places  # noqa: PLC0415  # loads torch

        places = Places(store=store, storage=storage, heartbeat_s=heartbeat, replay=replay)
        return _run_here(problems, settings, places, started=started, as_json=as_json)

    finish(command, store=store, state_dir=state_dir)
