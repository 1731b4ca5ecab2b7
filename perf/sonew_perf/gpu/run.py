"""The run itself: unit after unit within the budget, each kept as soon as it is done, and one record of everything at the end."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sonew import paths
from sonew.errors import InvalidConfigError
from sonew_autotune.device import gpu_problem, gpus_seen
from sonew_autotune.store.files import write_atomically
from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.worker import Worker
from sonew_perf.errors import RecordError
from sonew_perf.gpu.identity import describe_device, describe_sources, describe_versions, key_of
from sonew_perf.gpu.jax_part import run_jax_ladder, run_jax_timing
from sonew_perf.gpu.ladder import run_ladder, run_racecheck
from sonew_perf.gpu.outcome import Outcome, of_timing
from sonew_perf.gpu.plan import FULL, JAX_TESTS, LADDER, STAGES, JaxLadder, Ladder, Racecheck, Scale, Task, Tune, Unit, make_plan
from sonew_perf.gpu.targets import Row, judge_all
from sonew_perf.gpu.timing import Answer, Broken, Request, Timing, make_timer
from sonew_perf.gpu.tuning import run_tune
from sonew_perf.gpu.work import SCHEMA_VERSION, Finished, WorkFile
from sonew_perf.jax.request import JaxTiming

BUDGET_S: Final = 560.0  # with the start of Python and a last trial's grace, under ten minutes
SLACK: Final = 3.0  # a unit that takes longer than so many times its estimate is stopped
LEAST_S: Final = 5.0  # with less than this left nothing is begun

Say = Callable[[str], None]
Runner = Callable[[Any, float], Outcome]


def no_gpu() -> str | None:
    """Why there is no GPU to measure on, in one line, or None."""
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        return "TRITON_INTERPRET is set, which interprets the kernels on the CPU; unset it"
    reason = gpu_problem()
    traces = gpus_seen() if reason is not None else []
    return f"{reason} (seen: {', '.join(traces)})" if reason is not None and traces else reason


def run_timing(task: Timing, seconds: float, *, start: Callable[[Request, float], Answer] | None = None) -> Outcome:
    """Time a case in a process of its own, again without the methods that left the process unusable.

    Args:
        task: the case. seconds: for everything.
        start: answers a request within a time, instead of a process.
    """
    deadline, broken = time.monotonic() + seconds, dict[str, str]()
    while True:
        answer = (start or _in_a_process)(Request(task, broken), max(0.0, deadline - time.monotonic()))
        if not isinstance(answer, Broken):
            break
        broken = {**broken, answer.case: answer.reason}
    if isinstance(answer, Failure):
        return Outcome(status="unfinished" if answer.kind == "timeout" else "failed", reason=answer.message)
    return of_timing(answer, len(task.case_names))


def _in_a_process(request: Request, seconds: float) -> Answer:
    worker = Worker(make_timer)
    try:
        answer: Answer = worker.answer(request, seconds)
        return answer
    finally:
        worker.close()


RUNNERS: Final[Mapping[type[Task], Runner]] = {
    Ladder: run_ladder,
    Racecheck: run_racecheck,
    Tune: run_tune,
    Timing: run_timing,
    JaxLadder: run_jax_ladder,
    JaxTiming: run_jax_timing,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is asked for.

    Attributes:
        stages: of `plan.STAGES`. budget_s: wall time of this call.
        out: the record; None puts it beside the work file.
        fresh: forget what earlier calls finished.
        scale: how large; the default is the real run.
    """

    stages: tuple[str, ...] = STAGES
    budget_s: float = BUDGET_S
    out: Path | None = None
    fresh: bool = False
    scale: Scale = FULL

    def __post_init__(self) -> None:
        """Validate names and numbers."""
        if unknown := [stage for stage in self.stages if stage not in STAGES]:
            msg = f"stage={unknown[0]!r} is not one of {list(STAGES)}. Pass for example --only bench."
            raise InvalidConfigError(msg)
        if not 0 < self.budget_s < float("inf"):
            msg = f"budget={self.budget_s} is not allowed: it must be a positive number of seconds. Pass --budget {BUDGET_S:.0f}."
            raise InvalidConfigError(msg)


@dataclass(frozen=True, slots=True)
class GpuRun:
    """What a call leaves: the record, where it lies, and what of it is said in tables."""

    record: dict[str, Any]
    path: Path
    rows: Sequence[Row]

    @property
    def ladder_failed(self) -> bool:
        """Whether a step of the correctness ladder failed, the JAX surface's among them."""
        return any(_is_check(entry) and entry["status"] == "failed" for entry in self.record["entries"])

    @property
    def warning(self) -> str:
        """Why the speeds may not be quoted, or nothing."""
        return str(self.record["not_quotable"])


def _allowed(unit: Unit, left: float, later: Sequence[Unit]) -> float:
    """Seconds for a unit, of those left before the units after it."""
    if not unit.elastic:
        return min(left, SLACK * unit.seconds)
    fixed = sum(other.seconds for other in later if not other.elastic)
    sharing = 1 + sum(other.elastic for other in later)
    return min(left, max(unit.seconds, (left - fixed) / sharing))


def _attempt(unit: Unit, seconds: float) -> Outcome:
    if seconds < LEAST_S:
        return Outcome(status="unfinished", reason="the budget ended before it; the same command goes on from here")
    try:
        return RUNNERS[type(unit.task)](unit.task, seconds)
    except Exception as error:  # noqa: BLE001  # the rest goes on, and the next call tries again
        return Outcome(status="unfinished", reason=f"{type(error).__name__}: {error}")


def _work(units: Sequence[Unit], work: WorkFile, known: dict[str, Finished], deadline: float, say: Say) -> None:
    """Do what is not known yet; `known` grows with every unit."""
    for number, unit in enumerate(units, start=1):
        place = f"[{number}/{len(units)}] {unit.name}"
        if unit.name in known:
            say(f"{place}: {known[unit.name].outcome.status} before, on {known[unit.name].date}")
            continue
        later = [other for other in units[number:] if other.name not in known]
        started = time.monotonic()
        allowed = _allowed(unit, deadline - started, later)
        if allowed >= LEAST_S:
            say(f"{place}: at most {allowed:.0f} s")
        outcome = _attempt(unit, allowed)
        seconds = time.monotonic() - started
        if outcome.final:
            known[unit.name] = work.append(unit.name, outcome, seconds)
        else:
            known[unit.name] = Finished(outcome, round(seconds, 1), "")
        say(f"{place}: {outcome.status} after {seconds:.0f} s{f' ({outcome.reason})' if outcome.reason else ''}")


def _not_quotable(entries: Sequence[Mapping[str, Any]]) -> str:
    """No speed is quoted from a red or missing test: none of JAX without its own, none at all without the kernels'."""
    checks = {entry["unit"]: entry["status"] for entry in entries if _is_check(entry)}
    red = [f"{unit} {status}" for unit, status in checks.items() if status != "done"]
    if set(checks) <= {JAX_TESTS}:
        red.append("the ladder is not part of this run")
    which = "The JAX speeds" if all(reason.startswith(JAX_TESTS) for reason in red) else "These speeds"
    return f"{which} may not be quoted: {', '.join(red)}." if red else ""


def _is_check(entry: Mapping[str, Any]) -> bool:
    return bool(entry["stage"] == LADDER or entry["unit"] == JAX_TESTS)


def _entry(unit: Unit, finished: Finished | None) -> dict[str, Any]:
    shared = {"unit": unit.name, "stage": unit.stage}
    if finished is None:
        return shared | {"status": "unfinished", "reason": "interrupted before it", "seconds": 0.0, "date": "", "result": {}}
    return shared | {**asdict(finished.outcome), "seconds": finished.seconds, "date": finished.date}


def run_gpu(options: Options, *, say: Say) -> GpuRun:
    """Do, or go on with, everything that the options ask for.

    Args:
        options: stages, budget, files, scale.
        say: told one line per unit as it begins and ends.

    Returns:
        The run, its record written to `options.out` or beside the work file.

    Raises:
        LockedError: another run is under way. RecordError: a file cannot be read or written.
        KeyboardInterrupt: as it came; what was finished is kept and recorded.
    """
    started = time.monotonic()
    about = {
        "device": describe_device(options.scale.device),
        "versions": describe_versions(),
        "sources": describe_sources(),
    }
    key = key_of(**about)
    work = WorkFile(paths.state_dir() / "gpu", key)
    units = make_plan(options.scale, options.stages)
    path = options.out or work.path.with_suffix(".json")
    with work.held():
        if options.fresh:
            work.forget()
        known = work.read()
        try:
            _work(units, work, known, started + options.budget_s, say)
        finally:
            run = _record(about, key, [_entry(unit, known.get(unit.name)) for unit in units], path)
    return run


def _record(about: Mapping[str, Any], key: str, entries: list[dict[str, Any]], path: Path) -> GpuRun:
    """Put everything into one document and write it whole."""
    rows = judge_all({entry["unit"]: entry["result"] for entry in entries})
    record = {
        "schema_version": SCHEMA_VERSION,
        "kind": "gpu run",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "key": key,
        **about,
        "complete": all(entry["status"] != "unfinished" for entry in entries),
        "not_quotable": _not_quotable(entries),
        "entries": entries,
        "targets": [asdict(row) | {"verdict": row.verdict} for row in rows],
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, document(record))
    except OSError as error:
        msg = f"{path} cannot be written: {error}. Pass a writable --out; finished units are kept, the same command goes on from there."
        raise RecordError(msg) from error
    return GpuRun(record, path, rows)


def document(record: Mapping[str, Any]) -> str:
    """The record as JSON text, an entry per line so that a committed record shows readable differences."""
    fields = [f"{json.dumps(name)}: {_value(value)}" for name, value in record.items()]
    return "{" + ",\n".join(fields) + "}\n"


def _value(value: object) -> str:
    if isinstance(value, list):
        return "[\n" + ",\n".join(json.dumps(item, allow_nan=False) for item in value) + "\n]"
    return json.dumps(value, allow_nan=False)
