"""A tuning run: problem after problem, search, final comparison, verdict, store. Where the time goes is decided here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sonew import tuned
from sonew_autotune.device import NoDeviceError
from sonew_autotune.measure import TARGET_SAMPLE_S
from sonew_autotune.problems import Case
from sonew_autotune.search.opening import join_search, open_search
from sonew_autotune.search.plan import Plan
from sonew_autotune.search.presence import Opened
from sonew_autotune.search.results import Record, Report, Result
from sonew_autotune.search.stopping import BUDGET, Rules, Stop
from sonew_autotune.search.study import Prepare, Search
from sonew_autotune.search.targets import Target, find_target, neighbours
from sonew_autotune.search.together import decide_once
from sonew_autotune.settings import EVERY_POINT, Settings
from sonew_autotune.store import winners
from sonew_autotune.store.evidence import entry_from, judge_comparison
from sonew_autotune.store.journal import LockedError
from sonew_autotune.store.merge import ORIGIN
from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.trial import FINAL_ROUNDS, RUNOFF, Comparison, FinalRequest, Request, Timed, TrialRequest
from sonew_autotune.trials.turns import DeviceBusyError

GRACE_SECONDS: Final = 4.0  # how far past the budget a trial or the final comparison may reach before it is stopped
SHORTEST_HANG: Final = 15.0  # seconds: a worker may have to start, which means importing torch
HANG_FACTOR: Final = 10.0
FINALISTS: Final = 8  # few rounds of a trial leave many within each other's noise
WORKLOADS: Final = 4  # of the last comparison: default, best, AdamW, copy
SHORTEST_FINAL: Final = 1.0
FINAL_SECONDS: Final = 120.0  # beyond its expected time, before a final comparison counts as hung

Answer = Callable[[Request, float], Any]


class OutOfTimeError(Exception):
    """The budget ended inside a trial, which therefore says nothing about its candidate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a run works on.

    Attributes:
        answer: answers trial requests within a time, see `worker.Worker`. turn: holds the device until a `time.monotonic()` at the latest.
        target: what a case's search rests on here.
        compiler: begins to compile a target's candidates in the background, None where there is nothing to compile or it would disturb
            the timing. ahead: how many candidates are compiled while one is timed.
    """

    answer: Answer
    turn: Callable[[float], AbstractContextManager[None]] = lambda _end: nullcontext()
    target: Callable[[Case], Target] = find_target
    compiler: Callable[[Target], Prepare] | None = None
    ahead: int = 0


def _enough(entry: tuned.Entry | None, wanted: int, patience: int | None) -> bool:
    """Whether a stored verdict needs no second look: taken on a quiet machine, after enough trials or a search that had found its end."""
    if entry is None or entry.evidence.get("noisy", True) or ORIGIN in entry.evidence:
        return False  # what was measured elsewhere, on a device of this kind, is used, and measured here when asked for
    evidence = entry.evidence
    trials = evidence.get("trials")
    ended = evidence.get("stopped") in ("every point", "roof")
    stalled = evidence.get("stopped") == "stalled" and patience is not None and evidence.get("patience", 0) >= patience
    return ended or stalled or (isinstance(trials, int) and trials >= wanted)


def final_seconds(default_ms: float) -> float:
    """What the final comparison will take: run-off and final rounds, each with two calibrating calls, and allocation."""
    sample = max(TARGET_SAMPLE_S, default_ms / 1000)
    samples, running = WORKLOADS * (FINAL_ROUNDS + 2), FINALISTS
    for rounds, left in RUNOFF:
        samples, running = samples + running * (rounds + 2), left
    return 1.0 + 1.2 * sample * samples


class Run:
    """One run over a list of cases.

    Args:
        settings: what may be spent.
        store_path: the user's store. studies: folder of the journals.
        machine: what the trials run on.
        report: told how it goes.
        started: `time.monotonic()` from which the budget counts.
        shared: a storage that other processes search in, too, instead of a journal of this process alone.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        store_path: Path,
        studies: Path,
        machine: Machine,
        report: Report,
        started: float,
        shared: Opened | None = None,
    ) -> None:
        self.settings = settings
        self.store_path = store_path
        self.studies = studies
        self.machine = machine
        self.report = report
        self.deadline = started + settings.budget_s
        self.shared = shared
        self.searched: list[tuple[Target, list[Record]]] = []

    def tune(self, cases: Sequence[Case]) -> list[Result]:
        """Tune every case; the budget left is shared among the cases left."""
        results = []
        for index, case in enumerate(cases):
            now = time.monotonic()
            try:
                result = self._tune_case(case, now + (self.deadline - now) / (len(cases) - index))
            except LockedError as error:  # its journal is taken: the other results stand
                result = Result(case=case, status="unfinished", note=str(error))
            results.append(result)
            self.report.end(result)
        return results

    def _tune_case(self, case: Case, deadline: float) -> Result:
        try:
            target = self.machine.target(case)
        except NoDeviceError as error:
            return Result(case=case, status="unfinished", note=str(error))
        points = len(target.space.points())
        wanted = points if self.settings.sampler == EVERY_POINT else min(self.settings.trials, points)
        stored = None if self.settings.fresh else winners.find(self.store_path, target.key)
        if stored is not None and _enough(stored, wanted, self.settings.patience):
            return Result(case=case, status="reused", entry=stored, note=f"tuned on {stored.evidence.get('date', 'an unknown date')}")
        with self._searching(target) as search:
            self.report.begin(case, search.wanted, search.resumed, search.method)
            try:
                return self._search_case(target, search, deadline)
            finally:
                self.searched.append((target, search.records))

    @contextmanager
    def _searching(self, target: Target) -> Iterator[Search]:
        settings, case = self.settings, target.subject.case
        plan = Plan(
            trials=settings.trials,
            seed=settings.seed,
            sampler=settings.sampler,
            rules=Rules(patience=settings.patience, bytes_moved=case.bytes_moved if case.device == "cuda" else 0),
            first=[target.space.default, *neighbours(target, self.store_path)],
            subject=target.as_json(),
            roof=lambda own, copy: case.roof_share(own.median_ms, copy.median_ms),
        )
        if self.shared is not None:
            yield join_search(self.shared, target.study_name, target.space, plan)
            return
        with open_search(self.studies, target.study_name, target.space, plan, fresh=settings.fresh, warn=self.report.warn) as search:
            yield search

    def _evaluate(self, target: Target, search: Search, config: dict[str, int]) -> Timed | Failure:
        best = next((record.config for record in search.ranked), None)
        incumbent = best if best not in (None, dict(target.subject.default)) else None
        request = TrialRequest(
            subject=target.subject, config=config, rounds=self.settings.rounds, seed=self.settings.seed, incumbent=incumbent
        )
        outcome: Timed | Failure = self._answer(request, self._patience_for(search), GRACE_SECONDS)
        return outcome

    def _patience_for(self, search: Search) -> float:
        """Seconds after which a candidate hangs: those of the settings, or many times what its like took, if that is less."""
        took = [record.seconds for record in search.records if record.failure is None]
        return min(self.settings.trial_s, max(SHORTEST_HANG, HANG_FACTOR * max(took))) if took else self.settings.trial_s

    def _answer(self, request: Request, seconds: float, grace: float) -> Any:  # noqa: ANN401  # whatever the machine answers
        """The outcome, after at most so many seconds. A death is given a second chance: it may not have been the candidate's doing.

        Raises:
            OutOfTimeError: the budget and its grace ended, before or inside.
        """
        end = self.deadline + grace
        for _ in range(2):
            with self.machine.turn(end):
                allowed = min(seconds, end - time.monotonic())
                outcome = self.machine.answer(request, max(allowed, 0.0))
            if isinstance(outcome, Failure) and outcome.kind == "timeout" and allowed < seconds:
                raise OutOfTimeError
            if not (isinstance(outcome, Failure) and outcome.kind == "crash"):
                break
        return outcome

    def _search_case(self, target: Target, search: Search, deadline: float) -> Result:
        case, default = target.subject.case, dict(target.subject.default)
        share = (deadline - time.monotonic()) / 2  # the most that is kept for the final comparison
        resumed = f"resumed with {search.resumed} finished trials" if search.resumed else ""

        def keep_going() -> bool:
            timed = search.ranked
            record = search.record_of(default)
            if record is not None and record.failure is not None:
                return False  # nothing can be compared with it
            if not timed:
                return time.monotonic() < self.deadline
            return time.monotonic() + min(share, final_seconds(timed[0].default_ms or 0.0)) < deadline

        try:
            stop = search.run(
                lambda config: self._evaluate(target, search, config),
                prepare=self.machine.compiler(target) if self.machine.compiler is not None else None,
                ahead=self.machine.ahead,
                keep_going=keep_going,
                told=lambda record: self.report.trial(case, record),
            )
        except (OutOfTimeError, DeviceBusyError):
            stop = BUDGET
        failures = tuple(record for record in search.records if record.failure is not None)
        broken = next((record for record in failures if record.config == default), None)
        if broken is not None and broken.failure is not None:
            note = f"the default configuration fails ({broken.failure.kind}): {broken.failure.message}"
            return Result(case=case, status="failed", note=note, failures=failures)
        if not search.ranked:
            return Result(case=case, status="unfinished", note="the budget ended before the first trial; pass a larger --budget")
        note = "; ".join(filter(None, (resumed, _ended(stop, search))))
        if self.shared is None:
            return self._decide(target, search, failures, note, share)
        return self._decide_once(self.shared, target, search, failures, note, share)

    def _decide_once(self, shared: Opened, target: Target, search: Search, failures: tuple[Record, ...], note: str, share: float) -> Result:
        """The decision of one of the processes that searched together, kept in this one's store as well."""
        made: list[Result] = []
        known = len(search.records)

        def decide() -> tuned.Entry | None:
            made.append(self._decide(target, search, failures, note, share))
            return made[0].entry

        entry, own = decide_once(
            shared,
            target.study_name,
            decide=decide,
            enough=lambda entry: _enough(entry, known, self.settings.patience),
            keep_going=lambda: time.monotonic() < self.deadline,
        )
        if own:
            return made[0]
        case = target.subject.case
        if entry is None:
            return Result(case=case, status="unfinished", note="another worker is at the final comparison", failures=failures)
        winners.save(self.store_path, entry, warn=self.report.warn)
        return Result(case=case, status="reused", entry=entry, note="decided by another worker", failures=failures)

    def _decide(self, target: Target, search: Search, failures: tuple[Record, ...], note: str, share: float) -> Result:
        case, default = target.subject.case, dict(target.subject.default)
        ranked = search.ranked
        faster = [record.config for record in ranked if record.ratio is not None and record.ratio.median < 1 and record.config != default]
        seconds = max(SHORTEST_FINAL, min(share, final_seconds(ranked[0].default_ms or 0.0)))
        request = FinalRequest(subject=target.subject, finalists=faster[:FINALISTS] or [default], seed=self.settings.seed, seconds=seconds)
        try:
            outcome: Comparison | Failure = self._answer(request, FINAL_SECONDS + seconds, 2 * GRACE_SECONDS)
        except (OutOfTimeError, DeviceBusyError):
            ended = "the budget ended inside the final comparison; run again to go on"
            return Result(case=case, status="unfinished", note=ended, failures=failures)
        if isinstance(outcome, Failure):
            return Result(case=case, status="failed", note=f"final comparison: {outcome.kind}: {outcome.message}", failures=failures)
        verdict = judge_comparison(target.subject, outcome)
        if verdict.noisy:
            note = "; ".join(filter(None, (note, "the machine is too busy to judge a challenger")))
            earlier = winners.find(self.store_path, target.key)
            if earlier is not None and not earlier.evidence.get("noisy", True):
                return Result(case=case, status="reused", entry=earlier, note=note, failures=failures)
        settings = self.settings
        entry = entry_from(target.key, target.subject, outcome, verdict, search.tried, seed=settings.seed, patience=settings.patience)
        if target.replayed:
            entry = replace(entry, evidence={**entry.evidence, **target.replayed})
        winners.save(self.store_path, entry, warn=self.report.warn)
        return Result(case=case, status=verdict.status, entry=entry, note=note, failures=failures)


def _ended(stop: Stop, search: Search) -> str:
    """What a result's note says of the search's end: nothing where it did what was asked for."""
    if stop == BUDGET:
        return f"the budget ended after {len(search.records)} of {search.wanted} trials"
    return stop.why if stop.kind in ("roof", "stalled") else ""
