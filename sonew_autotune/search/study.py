"""The search of one problem, driven by Optuna's ask and tell, kept in a journal file that survives a killed process.

The only module that imports Optuna. A point is never timed twice; a trial that was under way when the process died is
asked again on resume; a failed candidate is a record with a reason, not a bad number.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from sonew_autotune.measure import Ratio
from sonew_autotune.search.results import Record, Tried
from sonew_autotune.space import Config, Space
from sonew_autotune.store.files import set_aside
from sonew_autotune.store.journal import cut_torn_line, locked
from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.trial import Timed

RECORD: Final = "record"
MAX_WASTED: Final = 20  # asks in a row that brought nothing new, before a fresh point is drawn at random

Evaluate = Callable[[dict[str, int]], Timed | Failure]


class _NoLock:
    """The study's own lock is held all along, and unlike Optuna's lock files it cannot outlive a killed process."""

    def acquire(self) -> bool:
        """Nothing to wait for."""
        return True

    def release(self) -> None:
        """Nothing to give back."""


def _key(config: Config) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(config.items()))


def _record_of(config: dict[str, int], outcome: Timed | Failure) -> Record:
    if isinstance(outcome, Failure):
        return Record(config, failure=outcome)
    return Record(config, outcome.ratio, outcome.candidate.median_ms, outcome.default.median_ms)


def _parse(raw: Mapping[str, Any]) -> Record:
    ratio, failure = raw["ratio"], raw["failure"]
    return Record(
        dict(raw["config"]),
        Ratio(**ratio) if ratio else None,
        raw["median_ms"],
        raw["default_ms"],
        Failure(**failure) if failure else None,
    )


class Search:
    """One problem's search. Made by `open_search`.

    Attributes:
        space: the points.
        exhaustive: every valid point fits into the wanted number of trials, so no model is needed.
        resumed: finished trials found in the journal.
    """

    def __init__(self, space: Space, study: optuna.Study, *, trials: int, seed: int, first: Sequence[Config]) -> None:
        self.space = space
        self._study = study
        self._points = {_key(point): point for point in space.points()}
        self._wanted = min(trials, len(self._points))
        self.exhaustive = len(self._points) <= trials
        self._values = dict(space.axes)
        self._distributions = {name: _distribution(values) for name, values in space.axes}
        self._random = random.Random(seed)  # noqa: S311  # an order, not a secret
        self._known: dict[tuple[tuple[str, int], ...], Record] = {}
        interrupted = self._load()
        self.resumed = len(self._known)
        self._queue = [dict(config) for config in (*first, *interrupted) if config in space]

    def _load(self) -> list[dict[str, int]]:
        """Take finished trials over; configurations that were under way are told as failed and asked again."""
        again = []
        for trial in self._study.get_trials(deepcopy=False):
            if RECORD in trial.user_attrs:
                record = _parse(trial.user_attrs[RECORD])
                self._known[_key(record.config)] = record
            if not trial.state.is_finished():
                if RECORD not in trial.user_attrs and set(trial.params) == set(self._values):
                    again.append(self._config(trial))
                self._tell(trial.number, self._known.get(_key(self._config(trial))) if trial.params else None)
        return again

    def _config(self, trial: Trial | FrozenTrial) -> dict[str, int]:
        return {name: self._values[name][trial.params[name]] for name in self._values if name in trial.params}

    def _tell(self, number: int, record: Record | None) -> None:
        if record is None or record.ratio is None:
            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, record.ratio.median)

    @property
    def records(self) -> list[Record]:
        """Every finished trial, in the order they finished."""
        return list(self._known.values())

    @property
    def tried(self) -> Tried:
        """What an entry's evidence says of the search."""
        return Tried(self.space, self.records, self.exhaustive)

    @property
    def ranked(self) -> list[Record]:
        """Timed records, fastest first."""
        return sorted((record for record in self._known.values() if record.ratio), key=lambda r: r.ratio.median if r.ratio else 0.0)

    def _ask(self) -> Trial:
        """The next trial: what is queued, then every point in random order or the sampler's proposal."""
        while self._queue:
            config = self._queue.pop(0)
            if _key(config) not in self._known:
                return self._ask_for(config)
        return self._ask_new() if self.exhaustive else self._study.ask(self._distributions)

    def _ask_for(self, config: Config) -> Trial:
        self._study.enqueue_trial({name: self._values[name].index(config[name]) for name in self._values})
        return self._study.ask(self._distributions)

    def _ask_new(self) -> Trial:
        remaining = [point for key, point in self._points.items() if key not in self._known]
        return self._ask_for(self._random.choice(remaining))

    def run(
        self, evaluate: Evaluate, *, keep_going: Callable[[], bool] = lambda: True, told: Callable[[Record], None] = lambda _: None
    ) -> None:
        """Try points until the wanted number is known or `keep_going` says no.

        Args:
            evaluate: checks and times a configuration. An exception it raises (Ctrl-C) leaves the finished trials.
            keep_going: asked before each new trial.
            told: called with each new record.
        """
        wasted = 0
        while len(self._known) < self._wanted and keep_going():
            trial = self._ask() if wasted < MAX_WASTED else self._ask_new()
            config = self._config(trial)
            known = self._known.get(_key(config))
            if known is not None or self.space.rejects(config) is not None:
                self._tell(trial.number, known)
                wasted += 1
                continue
            wasted = 0
            record = _record_of(config, evaluate(config))
            trial.set_user_attr(RECORD, asdict(record))
            self._known[_key(config)] = record
            self._tell(trial.number, record)
            told(record)


def _distribution(values: Sequence[int]) -> BaseDistribution:
    """Positions in the tunable's values: ordered where there is an order to use, a plain choice where there are two or fewer."""
    if len(values) > 2:
        return IntDistribution(0, len(values) - 1)
    return CategoricalDistribution(range(len(values)))


def _load_search(path: Path, space: Space, *, trials: int, seed: int, first: Sequence[Config]) -> Search:
    journal = JournalFileBackend(str(path), lock_obj=_NoLock())  # type: ignore[arg-type]  # the base class is private
    study = optuna.create_study(storage=JournalStorage(journal), study_name=path.stem, direction="minimize", load_if_exists=True)
    study.sampler = TPESampler(seed=seed + len(study.get_trials(deepcopy=False)))  # on resume, other proposals than before
    return Search(space, study, trials=trials, seed=seed, first=first)


@contextmanager
def open_search(
    folder: Path,
    name: str,
    space: Space,
    *,
    trials: int,
    seed: int,
    first: Sequence[Config] = (),
    fresh: bool = False,
    warn: Callable[[str], None] = lambda _: None,
) -> Iterator[Search]:
    """Open or resume the search of one problem, alone on its journal file.

    Args:
        folder: of the journals.
        name: of the study; everything a time depends on must be in it, since trials of one name are compared.
        space: the points.
        trials: how many points should be known in the end.
        seed: of the sampler.
        first: points to try first, the default foremost.
        fresh: forget what an earlier run found.
        warn: told, in a line, about a broken journal, which is set aside.

    Raises:
        LockedError: another process is searching the same problem.
        OSError: the journal cannot be read or written.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder / f"{name}.journal"
    with locked(path.with_suffix(".lock"), wait=False):
        if fresh:
            path.unlink(missing_ok=True)
        cut_torn_line(path)
        try:
            search = _load_search(path, space, trials=trials, seed=seed, first=first)
        except OSError:
            raise
        except Exception as error:
            if not path.exists():
                raise  # whatever it was, no journal caused it
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            warn(f"{path} is broken ({reason}): it was moved to {set_aside(path, 'corrupt')} and the search begun anew")
            search = _load_search(path, space, trials=trials, seed=seed, first=first)
        yield search
