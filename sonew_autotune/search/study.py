"""The search of one problem, driven by Optuna's ask and tell, alone on a journal file or together with other processes.

A point is never timed twice, whoever timed it. A trial that was under way when its process died is tried again, a few times; a
failed candidate is a record with a reason, not a bad number. What counts is the record that a trial carries, not its state.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from sonew_autotune.search.plan import Plan, record_of
from sonew_autotune.search.presence import Presence, ask, end_trial
from sonew_autotune.search.results import Record, Tried, parse_record
from sonew_autotune.search.stopping import BUDGET, Stop, stop_of
from sonew_autotune.settings import EVERY_POINT
from sonew_autotune.space import Config, Point, Space, point_of
from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.trial import Timed

RECORD: Final = "record"
MAX_WASTED: Final = 20  # asks in a row that brought nothing new, before a fresh point is drawn at random
DEATHS: Final = "deaths"
MAX_DEATHS: Final = 5  # processes that may die at one point before it counts as failed
POLL_S: Final = 0.2
SETTLE_S: Final = 2.0  # how long another process may need to write down a point that it takes
DEFAULT_SAMPLER: Final = "tpe"

Evaluate = Callable[[dict[str, int]], Timed | Failure]
Prepare = Callable[[dict[str, int]], "Future[Failure | None]"]


@dataclass(frozen=True, slots=True)
class _Begun:
    """A trial of this process: asked for, watched over by `working`, perhaps being prepared."""

    trial: Trial
    config: dict[str, int]
    working: ExitStack
    prepared: Future[Failure | None] | None


class Search:
    """One problem's search. Made by `opening.open_search` and `opening.join_search`.

    Attributes:
        space: the points.
        exhaustive: every valid point is to be tried, so no model is needed.
        resumed: finished trials found in the storage.
    """

    def __init__(self, space: Space, study: optuna.Study, presence: Presence, plan: Plan) -> None:
        self.space = space
        self._study, self._presence, self._plan = study, presence, plan
        self._points = {point_of(point): point for point in space.points()}
        self.exhaustive = plan.sampler == EVERY_POINT or (plan.sampler is None and len(self._points) <= plan.trials)
        self.wanted = len(self._points) if plan.sampler == EVERY_POINT else min(plan.trials, len(self._points))
        self._values = dict(space.axes)
        self._distributions = {name: _distribution(values) for name, values in space.axes}
        self._random = random.Random(plan.seed)  # noqa: S311  # an order, not a secret
        self._known: dict[Point, Record] = {}
        self._read: set[int] = set()
        self._begun: list[_Begun] = []
        self._busy: set[Point] = set()
        self._waiting = False
        self._stop: Stop | None = None
        self._sync()
        self.resumed = len(self._known)
        self._queue = [dict(config) for config in plan.first if config in space]

    @property
    def method(self) -> str:
        """How points are chosen."""
        return "every point" if self.exhaustive else self._plan.sampler or DEFAULT_SAMPLER

    def _sync(self) -> None:
        """Take over what others finished, see where they are at work, and give the trials of the dead another chance."""
        self._presence.bury(self._study, self._revive)
        self._busy, self._waiting = {point_of(begun.config) for begun in self._begun}, False
        mine = {begun.trial.number for begun in self._begun}
        for trial in self._study.get_trials(deepcopy=False):
            if trial.number not in self._read and RECORD in trial.user_attrs:
                record = parse_record(trial.user_attrs[RECORD])
                self._known.setdefault(point_of(record.config), record)
                self._read.add(trial.number)
            if trial.state == TrialState.RUNNING and trial.number not in mine and set(trial.params) == set(self._values):
                self._busy.add(point_of(self._config(trial)))
            self._waiting |= trial.state == TrialState.WAITING

    def _revive(self, study: optuna.Study, dead: FrozenTrial) -> None:
        """A process died in this trial: try its point again, unless too many did."""
        if RECORD in dead.user_attrs or set(dead.params) != set(self._values):
            return
        deaths = 1 + int(dead.user_attrs.get(DEATHS, 0))
        if deaths < MAX_DEATHS:
            study.enqueue_trial(dead.params, user_attrs={DEATHS: deaths})
            return
        failure = Failure("crash", f"{deaths} processes died while they tried this configuration")
        self._add(dead.params, dead.distributions, Record(self._config(dead), failure=failure, finished=time.time()))

    def _config(self, trial: Trial | FrozenTrial) -> dict[str, int]:
        return {name: self._values[name][trial.params[name]] for name in self._values if name in trial.params}

    def _tell(self, number: int, record: Record | None) -> None:
        end_trial(self._study, number, record.ratio.median if record is not None and record.ratio is not None else None)

    def _keep(self, trial: Trial, record: Record) -> None:
        """The record first, then the trial's state: a death in between loses nothing."""
        self._known[point_of(record.config)] = record
        try:
            trial.set_user_attr(RECORD, record.as_json())
        except UpdateFinishedTrialError:  # this process was taken for dead: what it found counts all the same
            self._add(trial.params, trial.distributions, record)
            return
        self._read.add(trial.number)
        self._tell(trial.number, record)

    def _add(self, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution], record: Record) -> None:
        """Put down a record without a trial of its own."""
        attributes, value = {RECORD: record.as_json()}, record.ratio.median if record.ratio is not None else None
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        self._study.add_trial(
            create_trial(state=state, value=value, params=dict(params), distributions=dict(distributions), user_attrs=attributes)
        )

    @property
    def records(self) -> list[Record]:
        """Every finished trial, in the order they finished."""
        return list(self._known.values())

    @property
    def tried(self) -> Tried:
        """What an entry's evidence says of the search."""
        stop = self._stop or BUDGET
        return Tried(self.space, self.records, self.method, stop.kind, stop.why)

    def record_of(self, config: Config) -> Record | None:
        """What is known of a point."""
        return self._known.get(point_of(config))

    @property
    def ranked(self) -> list[Record]:
        """Timed records, fastest first; of two alike the one that was timed to its end."""
        timed = [record for record in self._known.values() if record.ratio]
        return sorted(timed, key=lambda record: (record.ratio.median if record.ratio else 0.0, record.pruned))

    def stop(self) -> Stop | None:
        """Why the search may end, or None."""
        self._stop = stop_of(self.records, wanted=self.wanted, points=len(self._points), exhaustive=self.exhaustive, rules=self._plan.rules)
        return self._stop

    def _ask(self) -> Trial | None:
        """The next trial: another's that is to be repeated, what is queued, then a point at random or the sampler's proposal.

        None where every point is known or being tried elsewhere.
        """
        if self._waiting:
            self._waiting = False
            return ask(self._study, self._distributions)
        while self._queue:
            config = self._queue.pop(0)
            if self._is_new(config):
                return self._ask_for(config)
        return self._ask_new() if self.exhaustive else ask(self._study, self._distributions)

    def _is_new(self, config: Config) -> bool:
        return point_of(config) not in self._known and point_of(config) not in self._busy

    def _taken(self, number: int, config: Config) -> bool:
        """Whether an earlier trial of another process has the same point: of two that ask at once, the later one steps back."""
        limit = time.monotonic() + SETTLE_S
        mine = {begun.trial.number for begun in self._begun}
        while True:
            trials = [trial for trial in self._study.get_trials(deepcopy=False) if trial.number < number and trial.number not in mine]
            held = [trial for trial in trials if trial.state == TrialState.RUNNING or RECORD in trial.user_attrs]
            if any(self._config(trial) == config for trial in held):
                return True
            if all(len(trial.params) == len(self._values) for trial in held) or time.monotonic() > limit:
                return False
            time.sleep(SETTLE_S / 100)  # somebody is about to say which point it takes

    def _ask_for(self, config: Config) -> Trial:
        self._study.enqueue_trial({name: self._values[name].index(config[name]) for name in self._values})
        return ask(self._study, self._distributions)

    def _ask_new(self) -> Trial | None:
        remaining = [point for point in self._points.values() if self._is_new(point)]
        return self._ask_for(self._random.choice(remaining)) if remaining else None

    def _begin(self, prepare: Prepare | None) -> bool:
        """Begin a trial of a new point; False where there is none at the moment."""
        for attempt in range(2 * MAX_WASTED):
            trial = self._ask() if attempt < MAX_WASTED else self._ask_new()
            if trial is None:
                return False
            config = self._config(trial)
            with ExitStack() as working:
                try:
                    working.enter_context(self._presence.working(trial))
                except UpdateFinishedTrialError:
                    continue  # this process slept so long that it was taken for dead
                if self._is_new(config) and self.space.rejects(config) is None and not self._taken(trial.number, config):
                    self._busy.add(point_of(config))
                    self._begun.append(_Begun(trial, config, working.pop_all(), prepare(config) if prepare is not None else None))
                    return True
                self._tell(trial.number, self._known.get(point_of(config)))
        return False

    def _finish(self, begun: _Begun, evaluate: Evaluate) -> Record:
        start = time.monotonic()
        broken = begun.prepared.result() if begun.prepared is not None else None
        outcome = evaluate(begun.config) if broken is None else broken
        record = record_of(begun.config, outcome, seconds=time.monotonic() - start, roof=self._plan.roof)
        self._keep(begun.trial, record)
        self._begun.remove(begun)
        begun.working.close()
        return record

    def _abandon(self) -> None:
        """Give back what was asked for and not finished: nothing is known of it, and it is the first to be tried again."""
        while self._begun:
            begun = self._begun.pop()
            with begun.working:
                if begun.prepared is not None:
                    begun.prepared.cancel()
                self._tell(begun.trial.number, None)
                self._study.enqueue_trial(begun.trial.params)

    def run(
        self,
        evaluate: Evaluate,
        *,
        prepare: Prepare | None = None,
        ahead: int = 0,
        keep_going: Callable[[], bool] = lambda: True,
        told: Callable[[Record], None] = lambda _: None,
    ) -> Stop:
        """Try points until there is a reason to stop.

        Args:
            evaluate: checks and times a configuration. An exception it raises (Ctrl-C) leaves the finished trials.
            prepare: begins to compile a configuration in the background; its result is a failure or None.
            ahead: how many trials are asked for and prepared while one is evaluated.
            keep_going: asked before each new trial; False ends the search for want of time.
            told: called with each new record.
        """
        try:
            while True:
                self._sync()
                if (stop := self.stop()) is not None:
                    return stop
                if not keep_going():
                    return BUDGET
                room = min(1 + ahead - len(self._begun), self.wanted - len(self._known) - len(self._busy))
                while room > 0 and self._begin(prepare):
                    room -= 1
                if not self._begun:
                    time.sleep(POLL_S)  # the last points are being tried elsewhere
                    continue
                ready = next((each for each in self._begun if each.prepared is None or each.prepared.done()), None)
                if ready is None:  # not longer than a moment: the budget may end while a compiler hangs
                    wait([each.prepared for each in self._begun if each.prepared], POLL_S, FIRST_COMPLETED)
                    continue
                told(self._finish(ready, evaluate))
        finally:
            self._abandon()


def _distribution(values: Sequence[int]) -> BaseDistribution:
    """Positions in the tunable's values: ordered where there is an order to use, a plain choice where there are two or fewer."""
    if len(values) > 2:
        return IntDistribution(0, len(values) - 1)
    return CategoricalDistribution(range(len(values)))
