"""A tuning run: problem after problem, search, final comparison, verdict, store. Where the time goes is decided here."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from sonew import tuned
from sonew.dispatch import judge_backends, shipped_store_paths
from sonew.registry import BACKENDS
from sonew_autotune.device import NoDeviceError
from sonew_autotune.measure import TARGET_SAMPLE_S
from sonew_autotune.problems import Case
from sonew_autotune.search.results import Record, Report, Result
from sonew_autotune.search.study import Search, open_search
from sonew_autotune.settings import Settings
from sonew_autotune.space import Space, build_space
from sonew_autotune.store import winners
from sonew_autotune.store.evidence import entry_from, judge_comparison
from sonew_autotune.store.journal import LockedError
from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.trial import FINAL_ROUNDS, RUNOFF_ROUNDS, Comparison, FinalRequest, Request, Subject, Timed, TrialRequest
from sonew_kernels.spec import source_hash

PROTOCOL: Final = 1  # of the trials: raise it when their times are no longer comparable with older ones
TRIAL_SECONDS: Final = 120.0  # a candidate that takes longer to build, check and time is a failure
GRACE_SECONDS: Final = 4.0  # how far past the budget a trial or the final comparison may reach before it is stopped
FINALISTS: Final = 3
NEIGHBOURS: Final = 3


class OutOfTimeError(Exception):
    """The budget ended inside a trial, which therefore says nothing about its candidate."""


Answer = Callable[[Request, float], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A case with the backend that will step it here, and the key under which its winner is kept."""

    subject: Subject
    key: tuned.Key
    space: Space

    @property
    def study_name(self) -> str:
        """Everything that a trial's time depends on, as a file name."""
        identity = [PROTOCOL, asdict(self.key), self.subject.case.shapes, self.space.axes, dict(self.subject.default)]
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
        return f"{self.key.kernel}-band{self.key.band}-{self.key.param_dtype}-{self.subject.case.name}-{digest}"


def find_target(case: Case) -> Target:
    """The tunable backend for a case on this machine.

    Raises:
        NoDeviceError: none can step it here; the message has every backend's reason.
    """
    verdicts = judge_backends(case.problem, framework="torch")
    modules = {row.name: row.module for row in BACKENDS if row.framework == "torch"}
    for verdict in verdicts:
        module = import_module(modules[verdict.backend])
        if verdict.reason is None and module.KERNEL:
            environment = module.environment()
            space = build_space(module.KERNEL, case.band, threads=int(environment["threads"]))
            key = tuned.make_key(case.problem, module.KERNEL, environment, source_hash(module.KERNEL))
            subject = Subject(case=case, backend=verdict.backend, kernel=module.KERNEL, default=space.default)
            return Target(subject=subject, key=key, space=space)
    reasons = "; ".join(f"{verdict.backend}: {(verdict.reason or 'has nothing to tune').splitlines()[0][:300]}" for verdict in verdicts)
    msg = f"nothing can be tuned for {case.title}. {reasons}"
    raise NoDeviceError(msg)


def neighbours(target: Target, path: Path) -> list[dict[str, int]]:
    """The best of similar problems on this device, nearest first: good points to try early."""
    stores = [tuned.read_store("user store", path), *(tuned.read_store("shipped store", shipped) for shipped in shipped_store_paths())]
    verdicts = [
        tuned.judge(source.name, entry, target.key, None)
        for source in stores
        for entry in source.entries
        if entry.key.kernel == target.key.kernel and entry.config.as_dict() in target.space
    ]
    verdicts.sort(key=lambda verdict: (len(verdict.reasons), *verdict.rank))
    unique = {verdict.entry.config.meta: verdict.entry.config.as_dict() for verdict in verdicts}
    return list(unique.values())[:NEIGHBOURS]


def _enough(entry: tuned.Entry | None, wanted: int) -> bool:
    """Whether a stored verdict needs no second look: enough trials behind it, taken on a quiet machine."""
    if entry is None or entry.evidence.get("noisy", True):
        return False
    trials = entry.evidence.get("trials")
    return isinstance(trials, int) and trials >= wanted


def final_seconds(default_ms: float) -> float:
    """What the final comparison will take: run-off and final rounds, each with two calibrating calls, four workloads, and allocation."""
    sample = max(TARGET_SAMPLE_S, default_ms / 1000)
    return 1.0 + 1.2 * 4 * sample * (RUNOFF_ROUNDS + FINAL_ROUNDS + 4)


class Run:
    """One run over a list of cases.

    Args:
        settings: what may be spent.
        store_path: the user's store. studies: folder of the journals.
        answer: answers trial requests within a time, see `worker.Worker`.
        report: told how it goes.
        started: `time.monotonic()` from which the budget counts.
    """

    def __init__(self, settings: Settings, *, store_path: Path, studies: Path, answer: Answer, report: Report, started: float) -> None:
        self.settings = settings
        self.store_path = store_path
        self.studies = studies
        self.answer = answer
        self.report = report
        self.deadline = started + settings.budget_s

    def tune(self, cases: Sequence[Case]) -> list[Result]:
        """Tune every case; the budget left is shared among the cases left."""
        results = []
        for index, case in enumerate(cases):
            now = time.monotonic()
            try:
                result = self._tune_case(case, now + (self.deadline - now) / (len(cases) - index))
            except (LockedError, OSError) as error:  # its journal is taken or its files cannot be written: the other results stand
                result = Result(case=case, status="unfinished", note=str(error))
            results.append(result)
            self.report.end(result)
        return results

    def _tune_case(self, case: Case, deadline: float) -> Result:
        try:
            target = find_target(case)
        except NoDeviceError as error:
            return Result(case=case, status="unfinished", note=str(error))
        wanted = min(self.settings.trials, len(target.space.points()))
        stored = None if self.settings.fresh else winners.find(self.store_path, target.key)
        if stored is not None and _enough(stored, wanted):
            return Result(case=case, status="reused", entry=stored, note=f"tuned on {stored.evidence.get('date', 'an unknown date')}")
        first = [target.space.default, *neighbours(target, self.store_path)]
        with open_search(
            self.studies,
            target.study_name,
            target.space,
            trials=wanted,
            seed=self.settings.seed,
            first=first,
            fresh=self.settings.fresh,
            warn=self.report.warn,
        ) as search:
            self.report.begin(case, wanted, search.resumed)
            return self._search_case(target, search, deadline)

    def _search_case(self, target: Target, search: Search, deadline: float) -> Result:
        case = target.subject.case
        note = f"resumed with {search.resumed} finished trials" if search.resumed else ""

        def evaluate(config: dict[str, int]) -> Timed | Failure:
            request = TrialRequest(subject=target.subject, config=config, rounds=self.settings.rounds, seed=self.settings.seed)
            allowed = min(TRIAL_SECONDS, self.deadline + GRACE_SECONDS - time.monotonic())
            outcome: Timed | Failure = self.answer(request, max(allowed, 0.0))
            if isinstance(outcome, Failure) and outcome.kind == "timeout" and allowed < TRIAL_SECONDS:
                raise OutOfTimeError
            return outcome

        def keep_going() -> bool:
            timed = search.ranked
            if not timed:
                return time.monotonic() < self.deadline and not search.records  # a default that fails ends the search
            return time.monotonic() + final_seconds(timed[0].default_ms or 0.0) < deadline

        try:
            search.run(evaluate, keep_going=keep_going, told=lambda record: self.report.trial(case, record))
        except OutOfTimeError:
            return Result(case=case, status="unfinished", note="the budget ended inside a trial; run again to go on")
        failures = tuple(record for record in search.records if record.failure is not None)
        broken = next((record for record in failures if record.config == dict(target.subject.default)), None)
        if broken is not None and broken.failure is not None:
            note = f"the default configuration fails ({broken.failure.kind}): {broken.failure.message}"
            return Result(case=case, status="failed", note=note, failures=failures)
        if not search.ranked:
            return Result(case=case, status="unfinished", note="the budget ended before the first trial; pass a larger --budget")
        return self._decide(target, search, failures, note)

    def _decide(self, target: Target, search: Search, failures: tuple[Record, ...], note: str) -> Result:
        case, default = target.subject.case, dict(target.subject.default)
        ranked = search.ranked
        faster = [record.config for record in ranked if record.ratio is not None and record.ratio.median < 1 and record.config != default]
        seconds = final_seconds(ranked[0].default_ms or 0.0)
        request = FinalRequest(subject=target.subject, finalists=faster[:FINALISTS] or [default], seed=self.settings.seed, seconds=seconds)
        left = self.deadline + 2 * GRACE_SECONDS - time.monotonic()
        outcome: Comparison | Failure = self.answer(request, max(min(TRIAL_SECONDS + seconds, left), 0.0))
        if isinstance(outcome, Failure):
            if outcome.kind == "timeout":
                ended = "the budget ended inside the final comparison; run again to go on"
                return Result(case=case, status="unfinished", note=ended, failures=failures)
            return Result(case=case, status="failed", note=f"final comparison: {outcome.kind}: {outcome.message}", failures=failures)
        verdict = judge_comparison(target.subject, outcome)
        if verdict.noisy:
            note = "; ".join(filter(None, (note, "the machine is too busy to judge a challenger")))
            earlier = winners.find(self.store_path, target.key)
            if earlier is not None and not earlier.evidence.get("noisy", True):
                return Result(case=case, status="reused", entry=earlier, note=note, failures=failures)
        entry = entry_from(target.key, target.subject, outcome, verdict, search.tried, seed=self.settings.seed)
        winners.save(self.store_path, entry, warn=self.report.warn)
        return Result(case=case, status=verdict.status, entry=entry, note=note, failures=failures)
